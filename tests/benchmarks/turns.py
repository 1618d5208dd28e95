"""How things are compared: in turns, first round dropped, medians, and not while others work."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import psutil

ROUNDS = 8
MAX_SPREAD = 0.08
"""Of the reference in its own rounds, between the quartiles; above it a ratio means nothing."""
MAX_BUSY_CORES = 0.3
_LOOK_SECONDS = 4.0

Arm = Callable[[], float]
"""Does the work once, checks what it made, and returns what it cost in seconds."""


class Noisy(Exception):
    """Something else is at work on this machine."""


@dataclass(frozen=True)
class Taken:
    """What one arm cost, round by round, without the first."""

    seconds: Sequence[float]

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """How far apart the quartiles are, as a share of the median."""
        lower, _, upper = quantiles(self.seconds, n=4, method="inclusive")
        return (upper - lower) / self.median


def in_turns(
    arms: Mapping[str, Arm], *, rounds: int = ROUNDS, steady: str | None = "bare"
) -> dict[str, Taken]:
    """Let all arms work in turns, until the steady one was so in as many rounds as are wanted.

    The first round is dropped, and of the others the last ones count. Noisy where the rounds of the
    steady arm still differ too much after three times as many. Without a steady one nobody looks:
    for what is over in milliseconds.
    """
    wanted = int(os.environ.get("MM_BENCH_ROUNDS", rounds)) - 1
    most = wanted if steady is None or "MM_BENCH_NOISY" in os.environ else 3 * wanted
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(1 + most):
        for name, arm in arms.items():
            found[name].append(arm())
        taken = {name: Taken(seconds[1:][-wanted:]) for name, seconds in found.items()}
        if number >= wanted and steady is not None and taken[steady].spread <= MAX_SPREAD:
            break
    if steady is None:
        return taken
    for name, seconds in found.items():
        each = " ".join(f"{one:.3f}" for one in seconds)
        print(f"  {name}: {each} (spread {taken[name].spread:.1%})", file=sys.stderr)
    if taken[steady].spread > MAX_SPREAD:
        said = f"the rounds of {steady} lie {taken[steady].spread:.0%} apart"
        if "MM_BENCH_NOISY" not in os.environ:
            raise Noisy(f"{said}, more than {MAX_SPREAD:.0%}")
        print(f"  {said}", file=sys.stderr)
    return taken


def interval(ours: Taken, reference: Taken) -> str:
    """Return between what the ratio reference / ours lies, 95 of 100 times (bootstrap)."""
    rng = np.random.default_rng(0)
    draws = [rng.choice(one.seconds, (2000, len(one.seconds))) for one in (ours, reference)]
    medians = [np.median(one, axis=1) for one in draws]
    low, high = np.quantile(medians[1] / medians[0], (0.025, 0.975))
    return f"{low:.2f} to {high:.2f}"


def cpu_of_all() -> float:
    """Return the processor's time of this process and of everything below it, dead or alive."""
    me = psutil.Process()
    total = 0.0
    for one in (me, *me.children(recursive=True)):
        try:
            total += sum(one.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def refuse_noise() -> None:
    """End where others keep the machine busy: a ratio of two slowed-down things means nothing."""
    before, started = _busy_seconds(), time.monotonic()
    time.sleep(_LOOK_SECONDS)
    busy = (_busy_seconds() - before) / (time.monotonic() - started)
    if busy <= MAX_BUSY_CORES:
        return
    said = f"others keep {busy:.1f} cores of this machine busy; {MAX_BUSY_CORES:g} is the most"
    if "MM_BENCH_NOISY" not in os.environ:
        sys.exit(f"{said}. Nothing was measured: wait until it is quiet, or try out with --noisy.")
    print(f"{said}: the figures mean little", file=sys.stderr)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def shared_memory() -> str | None:
    """Return where files cost no disk, or None where a machine has no such place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
