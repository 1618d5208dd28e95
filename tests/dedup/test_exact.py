import pytest
from corpus_rule import decided

from mmcore.dedup.exact import ExactDuplicates
from mmcore.errors import ConfigError
from mmcore.sample import Dropped, Part, Sample


def sample(key: str, image: bytes | None, **meta: str | None) -> Sample:
    parts = {} if image is None else {"png": Part(data=image)}
    return Sample(key, parts, meta)


def dropped(rule: ExactDuplicates, samples: list[Sample]) -> dict[str, str]:
    outcomes = decided(rule, samples)
    assert len(outcomes) == len(samples)
    return {o.sample.key: o.twin for o in outcomes if isinstance(o, Dropped)}


def test_lowest_key_survives_and_the_others_name_it() -> None:
    rule = ExactDuplicates(same=("image",))
    samples = [sample("c", b"1"), sample("a", b"1"), sample("b", b"2"), sample("d", b"1")]
    assert dropped(rule, samples) == {"c": "a", "d": "a"}


def test_order_does_not_matter() -> None:
    rule = ExactDuplicates(same=("image",))
    samples = [sample(key, key[:1].encode()) for key in ("a1", "b1", "a2", "b2", "c1", "a3")]
    forward = {str(outcome) for outcome in decided(rule, samples)}
    assert forward == {str(outcome) for outcome in decided(rule, samples[::-1])}


def test_everything_named_must_be_equal() -> None:
    rule = ExactDuplicates(same=("image", "meta:language"))
    samples = [
        sample("a", b"1", language="fr"),
        sample("b", b"1", language="es"),
        sample("c", b"1", language="es"),
    ]
    assert dropped(rule, samples) == {"c": "b"}


@pytest.mark.parametrize("language", [None, ""])
def test_sample_that_lacks_a_name_is_kept(language: str | None) -> None:
    rule = ExactDuplicates(same=("image", "meta:language"))
    samples = [sample("a", b"1", language=language), sample("b", b"1", language=language)]
    assert dropped(rule, samples) == {}
    assert dropped(ExactDuplicates(same=("image",)), [sample("a", None), sample("b", None)]) == {}


def test_second_part_of_a_modality_makes_a_difference() -> None:
    rule = ExactDuplicates(same=("audio",))
    one = Sample("a", {"speech.ogg": Part(data=b"1")})
    two = Sample("b", {"speech.ogg": Part(data=b"1"), "effect.ogg": Part(data=b"2")})
    assert dropped(rule, [one, two]) == {}


def test_no_samples_give_no_outcomes() -> None:
    assert decided(ExactDuplicates(same=("image",)), []) == []


@pytest.mark.parametrize("same", [(), ("picture",), ("meta:",)])
def test_name_that_cannot_be_compared_is_a_config_error(same: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"exact_duplicates\.same"):
        ExactDuplicates(same=same)
