"""How the URLs of a list are fetched, as a recipe says it."""

from dataclasses import dataclass
from typing import ClassVar

from mmcore.errors import ConfigError
from mmcore.sample import Json


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Limits of fetching. Only what may change which bytes arrive is part of an identity."""

    # pydantic reads this when a recipe is checked
    __pydantic_config__: ClassVar = {"extra": "forbid", "strict": False}

    max_bytes: int = 32 << 20
    """Of one file; what is larger is quarantined as `url_too_large`."""
    allow_private: bool = False
    """Whether addresses that are not public (loopback, private, link-local) may be asked. A list
    from strangers must not be able to ask the machines of this network."""
    timeout_seconds: float = 60.0
    """For one try, from looking up the name to the last byte."""
    connect_seconds: float = 10.0
    max_redirects: int = 5
    per_host: int = 4
    """How many are fetched from one host at a time, over all workers; at least one per worker."""
    at_once: int = 32
    """How many are fetched by one worker at a time."""
    num_tries: int = 3
    """In one scan, with waits of 0.5 s, 1 s, 2 s ... before the next, for what may pass: timeouts,
    cut connections, 429 and 5xx."""
    num_scans: int = 5
    """How many scans try a URL that fails; each later scan asks for the failed ones alone."""
    user_agent: str = "mmcore"

    def __post_init__(self) -> None:
        for name in ("max_bytes", "per_host", "at_once", "num_tries", "num_scans"):
            if getattr(self, name) < 1:
                raise ConfigError(f"fetch.{name}={getattr(self, name)}: use 1 or more.")
        if self.timeout_seconds <= 0 or self.connect_seconds <= 0 or self.max_redirects < 0:
            raise ConfigError(
                f"fetch: timeout_seconds={self.timeout_seconds:g}, "
                f"connect_seconds={self.connect_seconds:g}, max_redirects={self.max_redirects}: "
                "times are above 0, and redirects 0 or more."
            )

    def identity(self) -> dict[str, Json]:
        """Return what decides which bytes may arrive."""
        return {
            "max_bytes": self.max_bytes,
            "allow_private": self.allow_private,
            "max_redirects": self.max_redirects,
        }
