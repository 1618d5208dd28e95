"""Every error that this library raises on purpose.

MmError
 +-- ConfigError        the recipe or the command line is wrong          (exit 2)
 +-- StorageError       a disk or an object store did not do its part    (exit 1)
 +-- IntegrityError     bytes are not what a manifest says they are      (exit 1)
 +-- AccountingError    samples were lost or doubled between two steps   (exit 1)
 +-- StepError          a step could not be finished                     (exit 1)
 |    +-- RanksLost     ranks died or froze; they may be started again   (exit 1)
 +-- LeaseLost          another run has taken this one's place           (exit 1)
 +-- RunCancelled       somebody asked the run to stop                   (exit 130)
 +-- GateRefused        a gate said no                                   (exit 3)
 +-- MissingExtra       an optional library is needed and is not here    (exit 1)

SampleError stands apart: it is bad data, which becomes a value (`Quarantined`), never a failure.

A message says what is wrong, what was found, and what to do.
"""


class MmError(Exception):
    """The base of every error meant for the user."""

    exit_code = 1


class ConfigError(MmError):
    """The recipe or the command line is wrong."""

    exit_code = 2


class StorageError(MmError):
    """A disk or an object store failed; no sample is dropped because of it."""


class IntegrityError(MmError):
    """Bytes differ from what a manifest says: length, SHA-256 or count."""


class AccountingError(MmError):
    """in = kept + dropped + quarantined does not hold."""


class StepError(MmError):
    """A step could not be finished."""


class RanksLost(StepError):
    """Ranks that work together died, froze or lost each other: starting again may help."""


class LeaseLost(MmError):
    """Another run has taken this one's place: it must commit nothing any more."""


class RunCancelled(MmError):
    """Somebody asked the run to stop."""

    exit_code = 130

    def __init__(self, by: str = "", why: str = "") -> None:
        said = " ".join(["cancelled", *([f"by {by}"] if by else [])])
        said += f": {why}" if why else ""
        super().__init__(f"{said.rstrip('.')}. What is done is kept; run again to go on.")
        self.by = by
        self.why = why


class GateRefused(MmError):
    """A gate refused a model or a dataset."""

    exit_code = 3


class MissingExtra(MmError):
    """An optional library is needed and is not installed."""


class SampleError(Exception):
    """One sample is broken: it is quarantined under `reason`, a short snake_case word.

    >>> raise SampleError("image_undecodable", "not a PNG: starts with b'<svg'")
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
