"""Examples are few, and the same ones in whatever order samples come."""

import random

from mmcore.evaluate.data.reservoir import Reservoir

KEYS = [f"sample-{number:04d}" for number in range(500)]


def held(keys: list[str], *, seed: int = 0, size: int = 7) -> list[str]:
    reservoir: Reservoir[str] = Reservoir(size, seed=seed)
    for key in keys:
        reservoir.offer("group", key, lambda key=key: key)  # type: ignore[misc]
    return reservoir.of("group")


def test_examples_are_the_same_in_any_order() -> None:
    shuffled = random.Random(1).sample(KEYS, k=len(KEYS))
    assert held(KEYS) == held(shuffled) == held(KEYS[::-1])
    assert len(held(KEYS)) == 7


def test_another_seed_chooses_others() -> None:
    assert held(KEYS, seed=1) != held(KEYS)


def test_every_sample_has_the_same_chance() -> None:
    chosen = [key for seed in range(200) for key in held(KEYS, seed=seed)]
    first_half = sum(key < KEYS[250] for key in chosen)
    assert 600 < first_half < 800


def test_groups_do_not_take_from_each_other_and_few_are_all_kept() -> None:
    reservoir: Reservoir[str] = Reservoir(3, seed=0)
    for key in KEYS:
        reservoir.offer("many", key, lambda: "one of many")
    reservoir.offer("few", "a", lambda: "a")
    reservoir.offer("few", "b", lambda: "b")
    assert reservoir.groups == ["few", "many"]
    assert sorted(reservoir.of("few")) == ["a", "b"]
    assert len(reservoir.of("many")) == 3


def test_what_gives_way_is_never_made() -> None:
    made: list[str] = []
    reservoir: Reservoir[None] = Reservoir(2, seed=0)
    for _ in range(3):
        for key in KEYS:
            reservoir.offer("group", key, lambda key=key: made.append(key))  # type: ignore[misc]
    assert len(made) < 40


def test_a_key_that_comes_twice_is_there_once() -> None:
    assert held(["a", "a", "b", "b"]) in (["a", "b"], ["b", "a"])
