import pytest

from mmcore.register.decision import Decision, Standing, decide


def verdict(
    challenger: float, champion: float | None, min_improvement: float = 0.0, data: str = "d1"
) -> Decision:
    return decide(
        Standing(2, challenger, "d1"),
        Standing(1, champion, data),
        metric="accuracy",
        min_improvement=min_improvement,
    )


def test_first_model_is_the_champion() -> None:
    made = decide(Standing(1, 0.4, "d1"), None, metric="accuracy", min_improvement=0.5)
    assert (made.decision, made.champion_before, made.champion_after) == ("promoted", None, 1)
    assert made.why == "there was no champion; accuracy is 0.4000"


@pytest.mark.parametrize(
    ("challenger", "champion", "min_improvement", "expected"),
    [
        (0.81, 0.80, 0.0, "promoted"),
        (0.80, 0.80, 0.0, "kept_champion"),
        (0.79, 0.80, 0.0, "kept_champion"),
        (0.82, 0.80, 0.02, "promoted"),  # 0.82 - 0.80 is 0.01999.. in binary
        (0.819, 0.80, 0.02, "kept_champion"),
    ],
)
def test_champion_is_replaced_only_when_beaten_by_the_margin(
    challenger: float, champion: float, min_improvement: float, expected: str
) -> None:
    made = verdict(challenger, champion, min_improvement)
    assert made.decision == expected
    assert made.champion_after == (2 if expected == "promoted" else 1)


def test_reason_names_both_values_and_the_margin() -> None:
    made = verdict(0.81, 0.80, 0.05)
    assert made.why == (
        "accuracy 0.8100 against 0.8000 of version 1: +0.0100, at least 0.0500 asked"
    )


def test_reason_says_that_the_data_differed() -> None:
    assert "measured on different test sets" in verdict(0.9, 0.8, data="d0").why


def test_champion_of_unknown_worth_stays() -> None:
    made = verdict(0.9, None)
    assert made.decision == "kept_champion"
    assert "no recorded accuracy" in made.why
