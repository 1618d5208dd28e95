"""What the dashboard is told when it starts."""

import hashlib
import os
from dataclasses import dataclass

from mmcore import storage
from mmcore.errors import ConfigError
from mmcore.telemetry.prefect import PrefectApi

_MIN_TOKEN_CHARACTERS = 16


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One dashboard over one storage root."""

    root: str
    """Absolute path or URL of the storage root."""
    token: str
    """What a person or a script shows to be let in; also the key that sessions are signed with."""
    prefect: PrefectApi | None = None
    """None: no server of Prefect is known, and pages say so."""
    allowed_hosts: tuple[str, ...] = ()
    """Names in the Host header besides those of this machine's loopback."""
    state_directory: str = ""
    """Where the index lies; by default `<root>/state`, or a cache directory for a bucket."""

    def __post_init__(self) -> None:
        if len(self.token) < _MIN_TOKEN_CHARACTERS:
            raise ConfigError(
                f"the dashboard's token has {len(self.token)} characters. Use at least "
                f"{_MIN_TOKEN_CHARACTERS}, for example: python3 -c "
                "'import secrets; print(secrets.token_urlsafe(32))'"
            )

    @property
    def index_path(self) -> str:
        """Return where the index lies on a disk of this machine."""
        return os.path.join(self.state_directory or _state_directory(self.root), "dashboard.sqlite")


def _state_directory(root: str) -> str:
    if storage.is_local(root):
        return os.path.join(root, "state")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "mmcore", hashlib.sha256(root.encode()).hexdigest()[:16])
