"""Who is let in: the token, sessions signed with it, and how often one may be wrong."""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict

SESSION_SECONDS = 30 * 24 * 3600
_MAX_WRONG = 10
_WINDOW_SECONDS = 60.0
_MAX_CLIENTS = 1000


class Sessions:
    """Sessions that need no table: a nonce and a time, signed with a key made of the token.

    They outlive a restart of the dashboard and end when the token changes.
    """

    def __init__(self, token: str) -> None:
        self._token = hashlib.sha256(token.encode()).digest()
        self._key = hmac.digest(token.encode(), b"mm.dashboard.session/1", "sha256")
        # cookies ignore ports: two dashboards on one machine must not log each other out
        self.cookie_name = f"mm_session_{self._sign('name')[:8]}"

    def is_token(self, candidate: str) -> bool:
        """Return whether this is the token, in a time that says nothing about it."""
        return hmac.compare_digest(hashlib.sha256(candidate.encode()).digest(), self._token)

    def issue(self) -> str:
        """Return the value of a new session's cookie."""
        body = f"{secrets.token_hex(16)}.{int(time.time())}"
        return f"{body}.{self._sign(f'session {body}')}"

    def is_valid(self, session: str) -> bool:
        """Return whether we issued this session and it has not run out."""
        body, _, signature = session.rpartition(".")
        _, _, issued_at = body.rpartition(".")
        if not _same(signature, self._sign(f"session {body}")) or not issued_at.isdecimal():
            return False
        return time.time() - int(issued_at) < SESSION_SECONDS

    def csrf_token(self, session: str) -> str:
        """Return what a form of this session has to carry."""
        return self._sign(f"csrf {session}")

    def is_csrf_token(self, candidate: str, session: str) -> bool:
        """Return whether a form was made for this session."""
        return _same(candidate, self.csrf_token(session))

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()


class WrongTries:
    """Counts wrong tokens per client: after ten in a minute the door stays shut for a while."""

    def __init__(self) -> None:
        self._by_client: OrderedDict[str, list[float]] = OrderedDict()

    def retry_after_seconds(self, client: str) -> int:
        """Return how long this client has to wait; 0 when it may try."""
        now = time.monotonic()
        recent = [at for at in self._by_client.get(client, []) if now - at < _WINDOW_SECONDS]
        if len(recent) < _MAX_WRONG:
            return 0
        return max(1, int(recent[-_MAX_WRONG] + _WINDOW_SECONDS - now) + 1)

    def add(self, client: str) -> None:
        """Count a wrong try."""
        tries = self._by_client.setdefault(client, [])
        tries.append(time.monotonic())
        del tries[:-_MAX_WRONG]
        self._by_client.move_to_end(client)
        while len(self._by_client) > _MAX_CLIENTS:
            self._by_client.popitem(last=False)


def _same(candidate: str, expected: str) -> bool:
    return hmac.compare_digest(candidate.encode(), expected.encode())
