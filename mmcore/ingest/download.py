"""Fetches URLs that strangers wrote down: with limits, politely, and believing nothing they say.

Every hop of a redirect is judged like the first URL. What arrives is judged by its first bytes; the
headers of the answer are not asked.
"""

import asyncio
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import httpcore

from mmcore.ingest.addresses import AddressRefused, GuardedBackend, NameUnknown
from mmcore.ingest.fetchconfig import FetchConfig
from mmcore.media.kind import extension_of
from mmcore.sample import modality_of

_FIRST_WAIT_SECONDS = 0.5
_MAX_WAIT_SECONDS = 30.0
_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_GONE = (404, 410)
_FORBIDDEN = (401, 402, 403, 407, 451)
FINAL = ("url_refused", "url_redirects", "url_too_large")
"""Failures that another try under the same configuration would not cure."""
_LOOKED_AT = 1024
_URL_SAFE = "!#$%&'()*+,/:;=?@[]~"


@dataclass(frozen=True)
class Download:
    """What became of one URL."""

    url: str
    file: str = ""
    """Where the bytes are; empty when there are none."""
    extension: str = ""
    reason: str = ""
    detail: str = ""
    """The same for the same fault, wherever and whenever: no time, no address of ours."""


class _Failed(Exception):
    """A try that failed."""

    def __init__(self, reason: str, detail: str, *, may_pass: bool = False) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.may_pass = may_pass


def download_all(
    urls: Sequence[str], directory: str, config: FetchConfig, *, per_host: int
) -> list[Download]:
    """Fetch URLs into files of a directory; return what became of each, in the same order."""
    # a thread of its own: the caller may be part of an event loop
    with ThreadPoolExecutor(1, "download") as pool:
        return pool.submit(asyncio.run, _download_all(urls, directory, config, per_host)).result()


async def _download_all(
    urls: Sequence[str], directory: str, config: FetchConfig, per_host: int
) -> list[Download]:
    hosts: dict[str, asyncio.Semaphore] = {}
    at_once = asyncio.Semaphore(config.at_once)
    async with httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=config.at_once,
        keepalive_expiry=5.0,
        network_backend=GuardedBackend(allow_private=config.allow_private),
    ) as pool:

        async def fetch(number: int, url: str) -> Download:
            file = str(Path(directory, f"{number:06d}"))
            host = (urlsplit(url).hostname or "") if _is_sound(url) else ""
            polite = hosts.setdefault(host, asyncio.Semaphore(per_host))
            async with polite, at_once:
                return await _with_tries(pool, url, file, config)

        tasks = [fetch(number, url) for number, url in enumerate(urls)]
        return await asyncio.gather(*tasks)


async def _with_tries(
    pool: httpcore.AsyncConnectionPool, url: str, file: str, config: FetchConfig
) -> Download:
    wait = _FIRST_WAIT_SECONDS
    for left in range(config.num_tries - 1, -1, -1):
        try:
            try:
                async with asyncio.timeout(config.timeout_seconds):
                    return Download(url, file, await _follow(pool, url, file, config))
            except TimeoutError:
                detail = f"not done after {config.timeout_seconds:g} s"
                raise _Failed("url_timeout", detail, may_pass=True) from None
        except _Failed as error:
            if not left or not error.may_pass:
                return Download(url, reason=error.reason, detail=error.detail)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _MAX_WAIT_SECONDS)
    raise AssertionError("the last try returns")


async def _follow(
    pool: httpcore.AsyncConnectionPool, url: str, file: str, config: FetchConfig
) -> str:
    """Fetch a URL by way of its redirects; return the extension of what arrived."""
    for _ in range(config.max_redirects + 1):
        target = _target(url)
        try:
            found = await _ask(pool, target, file, config)
        except AddressRefused as error:
            raise _Failed("url_refused", str(error)) from error
        except NameUnknown as error:
            raise _Failed("url_unresolved", str(error), may_pass=True) from error
        except httpcore.TimeoutException as error:
            detail = type(error).__name__
            raise _Failed("url_timeout", detail, may_pass=True) from error
        except httpcore.ConnectError as error:
            raise _Failed("url_unreachable", "no connection", may_pass=True) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            detail = f"the connection broke off: {type(error).__name__}"
            raise _Failed("url_failed", detail, may_pass=True) from error
        if found.location is None:
            return found.extension
        try:
            url = urljoin(url, found.location)
        except ValueError as error:
            raise _Failed("url_refused", f"it leads to no URL: {error}") from error
    raise _Failed("url_redirects", f"more than {config.max_redirects} redirects")


@dataclass(frozen=True)
class _Answer:
    extension: str = ""
    location: str | None = None


async def _ask(
    pool: httpcore.AsyncConnectionPool, url: str, file: str, config: FetchConfig
) -> _Answer:
    seconds = config.timeout_seconds
    timeouts = {
        "connect": config.connect_seconds,
        "read": seconds,
        "write": seconds,
        "pool": seconds,
    }
    headers: dict[bytes | str, bytes | str] = {
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Host": _host(urlsplit(url)),
        "User-Agent": config.user_agent,
    }
    async with pool.stream("GET", url, headers=headers, extensions={"timeout": timeouts}) as answer:
        said = {name.lower(): value for name, value in answer.headers}
        if answer.status in _REDIRECTS and b"location" in said:
            return _Answer(location=said[b"location"].decode("latin-1"))
        if answer.status != 200:
            raise _refusal(answer.status)
        length = said.get(b"content-length", b"")
        if length.isdigit() and int(length) > config.max_bytes:
            raise _Failed("url_too_large", f"more than {config.max_bytes} bytes")
        with open(file, "wb") as out:
            return _Answer(await _receive(answer, out, config.max_bytes))


async def _receive(answer: httpcore.Response, out: BinaryIO, max_bytes: int) -> str:
    """Write a body to a file; return its extension, by its first bytes."""
    first = b""
    num_bytes = 0
    async for data in answer.aiter_stream():
        if len(first) < _LOOKED_AT:
            first += data[:_LOOKED_AT]
        num_bytes += len(data)
        if num_bytes > max_bytes:
            raise _Failed("url_too_large", f"more than {max_bytes} bytes")
        out.write(data)
    extension = extension_of(first)
    if extension is None or modality_of(extension) is None:
        raise _Failed("url_not_media", f"what arrived begins with {first[:24]!r}")
    return extension


def _refusal(status: int) -> _Failed:
    detail = f"HTTP {status}"
    if status in _GONE:
        return _Failed("url_not_found", detail)
    if status in _FORBIDDEN:
        return _Failed("url_forbidden", detail)
    return _Failed("url_failed", detail, may_pass=status in _PASSING)


def _is_sound(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _target(url: str) -> str:
    """Return a URL as it is sent; one that is none, or that holds a password, is refused."""
    if not _is_sound(url):
        raise _Failed("url_refused", "neither http:// nor https://, or no host")
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise _Failed("url_refused", "it holds a name or a password")
    try:
        host = _host(parts)
    except UnicodeError as error:
        raise _Failed("url_refused", f"no name of a host: {error}") from error
    path = quote(parts.path or "/", safe=_URL_SAFE)
    query = f"?{quote(parts.query, safe=_URL_SAFE)}" if parts.query else ""
    return f"{parts.scheme}://{host}{path}{query}"


def _host(parts: SplitResult) -> str:
    """Return host and port as they are sent."""
    name = parts.hostname or ""
    host = f"[{name}]" if ":" in name else name
    if not host.isascii():
        host = host.encode("idna").decode()
    return host if parts.port is None else f"{host}:{parts.port}"
