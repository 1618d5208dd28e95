"""How a Prefect server is asked: logging in, requests, pages, trying again; what may go wrong.

Every call is one request, but for the first that writes: a server with CSRF protection wants a
token fetched before it.

PrefectError          the server answered, and said no
 +-- PrefectUnreachable   no answer, or none that a Prefect server gives
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from mmcore.errors import MmError

PAGE_SIZE = 200
"""The most that a Prefect server hands out at a time."""
_BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.BAD_GATEWAY, httpx.codes.SERVICE_UNAVAILABLE)
_RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)  # its SQLite is locked by another writer now and then
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MAX_SAID_CHARACTERS = 500


class PrefectError(MmError):
    """The Prefect server answered, and said no."""

    def __init__(self, message: str, *, status_code: int = 0) -> None:
        super().__init__(message)
        self.status_code = status_code


class PrefectUnreachable(PrefectError):
    """No Prefect server answers; what was to be said may be said again later."""


class PrefectWire:
    """A connection to a Prefect server. Not for more than one thread at a time."""

    def __init__(self, url: str, auth: str | None = None, *, timeout_seconds: float = 30.0) -> None:
        self.url = url.rstrip("/")
        user, _, password = (auth or "").partition(":")
        self._client = httpx.Client(
            auth=httpx.BasicAuth(user, password) if auth else None,
            timeout=timeout_seconds,
            # a proxy has no way to this machine's loopback
            trust_env=urlsplit(url).hostname not in _LOOPBACK,
        )
        self._csrf: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _pages(self, path: str, body: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        offset = 0
        while True:
            page = self._ask("POST", path, {**(body or {}), "limit": PAGE_SIZE, "offset": offset})
            yield from page
            if len(page) < PAGE_SIZE:
                return
            offset += PAGE_SIZE

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        response = self._send(method, path, body)
        if response.status_code == httpx.codes.FORBIDDEN and "CSRF" in response.text:
            self._fetch_csrf_token()
            response = self._send(method, path, body)
        for delay_seconds in _RETRY_SECONDS:
            if response.status_code not in _BUSY:
                break
            time.sleep(delay_seconds)
            response = self._send(method, path, body)
        if response.is_success:
            return response.json() if response.content else None
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise PrefectError(
                f"the Prefect server at {self.url} refuses our login. Set PREFECT_API_AUTH_STRING "
                "to its user:password, or use the root whose `mm up` started it.",
                status_code=response.status_code,
            )
        raise PrefectError(
            f"the Prefect server at {self.url} refuses {method} {path} with "
            f"{response.status_code}: {response.text[:_MAX_SAID_CHARACTERS]}",
            status_code=response.status_code,
        )

    def _send(self, method: str, path: str, body: Any) -> httpx.Response:
        try:
            return self._client.request(method, self.url + path, json=body, headers=self._csrf)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise PrefectUnreachable(
                f"no Prefect server answers at {self.url} ({error or type(error).__name__}). "
                "Start one with `mm up`, or set PREFECT_API_URL to one that runs."
            ) from error

    def _fetch_csrf_token(self) -> None:
        client = str(uuid.uuid4())
        token = self._ask("GET", f"/csrf-token?client={client}")["token"]
        self._csrf = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": client}
