"""Asks a service whether it is well."""

import base64
import http.client
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import urlsplit

from mmcore.operate.service import WORK_POOL, Check
from mmcore.telemetry.prefect import PrefectApi, PrefectError

TIMEOUT_SECONDS = 10.0
"""A busy machine is no reason to start a service anew."""
_MAX_SILENCE_SECONDS = 180.0  # it waits longer and longer while its server does not answer


def complaint(check: Check, *, since: datetime) -> str | None:
    """Return what is wrong with a service started then, or None when it is well; raises nothing."""
    if check.kind == "process":
        return None  # whether it runs is seen by who started it
    return _of_worker(check, since) if check.kind == "worker" else _of_server(check)


@lru_cache(maxsize=1)
def _prefect(url: str, auth: str) -> PrefectApi:
    """Return one client for all questions: each new one asks for a token against forgery."""
    return PrefectApi(url, auth, timeout_seconds=TIMEOUT_SECONDS)


def _of_server(check: Check) -> str | None:
    # no proxy and no redirect: the answer has to be its own
    url = urlsplit(check.url)
    headers = {"Connection": "close"}
    if check.auth:
        headers["Authorization"] = f"Basic {base64.b64encode(check.auth.encode()).decode()}"
    connection = http.client.HTTPConnection(url.netloc, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", url.path, headers=headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"{check.url} does not answer: {error or type(error).__name__}"
    finally:
        connection.close()
    return None if status == http.client.OK else f"{check.url} answers with HTTP {status}"


def _of_worker(check: Check, since: datetime) -> str | None:
    try:
        heard = _prefect(check.url, check.auth).worker_heard_at(WORK_POOL, check.name)
    except PrefectError as error:
        return str(error)
    if heard is None or heard < since:  # an earlier one had the same name
        return "it has not reported to Prefect yet"
    silence = (datetime.now(UTC) - heard).total_seconds()
    return None if silence < _MAX_SILENCE_SECONDS else f"Prefect heard of it {silence:.0f} s ago"
