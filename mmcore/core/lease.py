"""One run at a time of a dataset: a lease that passes on when its holder ends, dies or is frozen.

`leases/<key>/<epoch>.json` is created, never overwritten, so of all who want an epoch one gets it.
The holder rewrites `<epoch>.beat` every few seconds; whoever waits takes the next epoch when the
holder has let go (`<epoch>.released`), when its process on this machine is dead, or when the beat
has stood still for a while by the clock of the one who waits: clocks of hosts are never compared.
A holder that was frozen and wakes up finds a newer epoch, and must stop: `Fence.check()`.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mmcore import storage
from mmcore.core.process import Process
from mmcore.errors import LeaseLost

BEAT_SECONDS = 5.0
"""Between two beats of a holder."""
EXPIRY_SECONDS = 20.0
"""How long a beat may stand still. Four beats: one that is late is no reason to take over."""
PATIENCE_SECONDS = 60.0
"""The same for a process of this machine that is seen to be alive and not frozen: its threads may
wait for one that computes."""
_LOOK_SECONDS = 1.0
_NUM_KEPT = 8  # epochs that stay to be looked at


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has a lease, or wants it."""

    run_id: str
    process: Process
    since: str
    """ISO 8601, by the holder's clock: for people."""

    @property
    def description(self) -> str:
        """Return who it is, in words."""
        where = f"host {self.process.host}, process {self.process.pid}"
        return f"run {self.run_id} ({where}, since {self.since})"

    def to_json(self, epoch: int) -> bytes:
        """Return what a lease file says."""
        value = {"format": "mm.lease", "format_version": 1, "epoch": epoch, "holder": asdict(self)}
        return json.dumps(value, indent=1, sort_keys=True).encode()

    @staticmethod
    def from_json(data: bytes) -> "Holder":
        """Read what a lease file says."""
        value = json.loads(data)["holder"]
        return Holder(**{**value, "process": Process(**value["process"])})


@dataclass(frozen=True)
class Fence:
    """Knows whether a lease is still held; can be sent to any process that works for its holder."""

    url: str
    epoch: int

    def check(self) -> None:
        """Raise LeaseLost when another run has taken over."""
        newest = _newest_epoch(self.url)
        if newest != self.epoch:
            raise LeaseLost(
                f"this run has lost the lease {self.url}: it was silent for so long that another "
                f"one took over (epoch {self.epoch}, now {newest}). It stops and commits nothing. "
                "Nothing is lost: the other run goes on from what was done."
            )


class Lease:
    """A lease that is held, until it is released or lost."""

    def __init__(self, url: str, epoch: int) -> None:
        self.fence = Fence(url, epoch)
        self._num_beats = 0

    def beat(self) -> None:
        """Say that the holder lives; LeaseLost when it is too late."""
        self.fence.check()
        self._num_beats += 1
        storage.write(_url(self.fence.url, self.fence.epoch, "beat"), str(self._num_beats).encode())

    def release(self) -> None:
        """Let the next one have it, at once."""
        storage.write(_url(self.fence.url, self.fence.epoch, "released"), b"")


class Contender:
    """Waits for a lease; looks, never sleeps, so that the caller decides how to wait."""

    def __init__(
        self, url: str, holder: Holder, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._holder = holder
        self._clock = clock
        self._seen: tuple[int, bytes | None] | None = None  # epoch and beat
        self._seen_at = 0.0

    def attempt(self) -> Lease | Holder:
        """Take the lease, or return who has it."""
        while True:
            looked_at = self._clock()  # before the look: whoever is frozen after it knows nothing
            names = _names(self._url)
            newest = _newest(names)
            if newest > 0:
                holder = self._who(newest)
                if holder is None:
                    continue  # pruned since it was listed: there are newer ones
                is_over = f"{newest:08d}.released" in names
                if not is_over and not self._has_expired(newest, holder.process, looked_at):
                    return holder
            if self._create(newest + 1):
                _prune(self._url, names, before=newest + 1 - _NUM_KEPT)
                return Lease(self._url, newest + 1)

    def _create(self, epoch: int) -> bool:
        return storage.create(_url(self._url, epoch, "json"), self._holder.to_json(epoch))

    def _who(self, epoch: int) -> Holder | None:
        data = storage.read_if_exists(_url(self._url, epoch, "json"))
        return None if data is None else Holder.from_json(data)

    def _has_expired(self, epoch: int, process: Process, looked_at: float) -> bool:
        if process.is_here and not process.is_alive:
            return True
        seen = (epoch, storage.read_if_exists(_url(self._url, epoch, "beat")))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._clock()
            return False
        is_working = process.is_here and not process.is_stopped
        patience = PATIENCE_SECONDS if is_working else EXPIRY_SECONDS
        return looked_at - self._seen_at > patience


def acquire(
    url: str,
    holder: Holder,
    *,
    on_wait: Callable[[Holder], None],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Lease:
    """Wait for a lease and take it; `on_wait` hears of each holder that has to be waited for.

    `sleep` may raise, to stop waiting.
    """
    contender = Contender(url, holder, clock=clock)
    waiting_for = None
    while not isinstance(found := contender.attempt(), Lease):
        if found != waiting_for:
            waiting_for = found
            on_wait(found)
        sleep(_LOOK_SECONDS)
    return found


def lease_url(root: str, key: str) -> str:
    """Return where the lease of a dataset lies."""
    return storage.join(root, "leases", key)


def current_holder(url: str) -> Mapping[str, Any] | None:
    """Return who holds a lease, as its file says, whether alive or not; None when nobody does."""
    names = _names(url)
    newest = _newest(names)
    if newest == 0 or f"{newest:08d}.released" in names:
        return None
    data = storage.read_if_exists(_url(url, newest, "json"))
    if data is None:
        return None
    value: dict[str, Any] = json.loads(data)
    return value


def _url(url: str, epoch: int, kind: str) -> str:
    return storage.join(url, f"{epoch:08d}.{kind}")


def _names(url: str) -> set[str]:
    return {file.path for file in storage.list_files(url)}


def _newest(names: set[str]) -> int:
    return max((int(name[:8]) for name in names if name.endswith(".json")), default=0)


def _newest_epoch(url: str) -> int:
    return _newest(_names(url))


def _prune(url: str, names: set[str], *, before: int) -> None:
    for name in sorted(names):
        if name[:8].isdigit() and int(name[:8]) < before:
            storage.delete(storage.join(url, name))
