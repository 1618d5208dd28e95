"""Tells a rank that lost the others from one that has itself gone wrong."""

from mmcore.errors import MmError, RanksLost

_WORDS = ("gloo", "nccl", "connection reset", "connection closed", "connection refused",
          "broken pipe", "socket", "timed out waiting", "process group")  # fmt: skip


def is_of_a_lost_peer(error: BaseException) -> bool:
    """Return whether a collective failed: another rank died or was frozen, not this one's fault.

    torch says so by types of its own, or in the words of the library below it.
    """
    if isinstance(error, MmError):  # or what a rank cannot work without was killed or is frozen
        return isinstance(error, RanksLost)
    if type(error).__name__.startswith("Dist") and type(error).__module__.startswith("torch"):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in said for word in _WORDS)
