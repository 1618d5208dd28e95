"""Whether a model takes the champion's place."""

from dataclasses import dataclass

PROMOTED = "promoted"
KEPT_CHAMPION = "kept_champion"
_DIGITS = 6


@dataclass(frozen=True)
class Standing:
    """A version and what was measured of it."""

    version: int
    value: float | None
    """Of the metric that decides; None where it was never recorded."""
    test_set: str
    """The fingerprint of the dataset version whose test split it was measured on."""


@dataclass(frozen=True)
class Decision:
    """What was decided, and why, for a person."""

    decision: str
    """`promoted` or `kept_champion`."""
    why: str
    champion_before: int | None
    champion_after: int


def decide(
    challenger: Standing, champion: Standing | None, *, metric: str, min_improvement: float
) -> Decision:
    """Promote where there is no champion, or it is beaten by at least `min_improvement`.

    A tie keeps the champion. So does a champion whose metric is unknown: what cannot be compared
    is not replaced unseen.
    """
    assert challenger.value is not None, "the evaluation says what the challenger is worth"
    if champion is None:
        why = f"there was no champion; {metric} is {challenger.value:.4f}"
        return Decision(PROMOTED, why, None, challenger.version)
    if champion.version == challenger.version:
        why = f"version {champion.version} is the champion already"
        return Decision(PROMOTED, why, champion.version, champion.version)
    if champion.value is None:
        why = (
            f"the champion, version {champion.version}, has no recorded {metric} to compare with; "
            "set the alias by hand to replace it"
        )
        return Decision(KEPT_CHAMPION, why, champion.version, champion.version)
    improvement = round(challenger.value - champion.value, _DIGITS)
    is_better = improvement > 0 and improvement >= min_improvement
    why = (
        f"{metric} {challenger.value:.4f} against {champion.value:.4f} of version "
        f"{champion.version}: {improvement:+.4f}, "
        + (f"at least {min_improvement:.4f} asked" if min_improvement > 0 else "more than 0 asked")
    )
    if champion.test_set != challenger.test_set:
        why += "; they were measured on different test sets"
    return Decision(
        PROMOTED if is_better else KEPT_CHAMPION,
        why,
        champion.version,
        challenger.version if is_better else champion.version,
    )
