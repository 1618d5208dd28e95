import numpy as np
import pytest

from mmcore.evaluate.predictions import Predictions
from mmcore.evaluate.retrieval import nearest_groups, rank_queries, retrieval


def predictions_of(image, text, groups, languages=None, *, has_text=None) -> Predictions:
    """Predictions with the embeddings given (scaled to length 1); audio is absent."""
    num = len(groups)

    def unit(rows):
        rows = np.asarray(rows, dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    languages = languages or ["en"] * num
    return Predictions(
        keys=[f"k{i:03d}" for i in range(num)],
        labels=["a"],
        meta=[
            {"caption_group": group, "language": language}
            for group, language in zip(groups, languages, strict=True)
        ],
        label=np.zeros(num, dtype=np.int64),
        probabilities={head: np.ones((num, 1)) for head in ("fused", "image", "text", "audio")},
        embeddings={"image": unit(image), "text": unit(text), "audio": unit(image)},
        has={
            "image": np.ones(num, dtype=bool),
            "text": np.ones(num, dtype=bool) if has_text is None else np.array(has_text),
            "audio": np.zeros(num, dtype=bool),
        },
    )


def recall(found, direction: str, k: int) -> float:
    return found[direction][f"recall_at_{k}"]["value"]


def test_perfect_embeddings_find_every_caption_first() -> None:
    found = retrieval(
        predictions_of(np.eye(6), np.eye(6), list("abcdef")), num_resamples=20, seed=0
    )
    assert sorted(found) == ["image_to_text", "text_to_image"]
    assert recall(found, "image_to_text", 1) == recall(found, "text_to_image", 1) == 1.0
    assert found["image_to_text"]["chance_at_1"] == pytest.approx(1 / 6, abs=1e-6)
    assert found["image_to_text"]["chance_at_10"] == 1.0


def test_hit_on_another_picture_of_the_same_caption_counts() -> None:
    # the text of sample 0 is nearest to the picture of sample 1: both are "rocket"
    image = [[1, 0, 0.2], [0, 1, 0], [0, 0, 1]]
    text = [[0, 1, 0], [0, 1, 0], [0, 0, 1]]
    shared = predictions_of(image, text, ["rocket", "rocket", "tree"])
    apart = predictions_of(image, text, ["rocket", "spaceship", "tree"])
    assert recall(retrieval(shared, num_resamples=5, seed=0), "text_to_image", 1) == 1.0
    assert recall(retrieval(apart, num_resamples=5, seed=0), "text_to_image", 1) < 1.0


def test_embeddings_that_say_nothing_never_beat_chance_by_ties() -> None:
    same = np.ones((20, 4))
    found = retrieval(
        predictions_of(same, same, [f"{i:02d}" for i in range(20)]), num_resamples=5, seed=0
    )
    assert recall(found, "image_to_text", 10) == 0.0


@pytest.mark.parametrize("k", [1, 5, 10])
def test_ranking_that_ignores_the_query_gets_exactly_chance_whatever_the_group_sizes(
    k: int,
) -> None:
    # groups of very unequal size, candidates with a fixed order of preference
    rng = np.random.default_rng(0)
    groups = [f"{g:02d}" for g in range(25) for _ in range(1 + g * g // 20)]
    preference = np.stack([rng.random(len(groups)), np.ones(len(groups))], axis=1)
    preference[:, 1] = np.sqrt(np.maximum(4 - preference[:, 0] ** 2, 0))  # equal lengths
    query = np.tile([1.0, 0.0], (len(groups), 1))
    found = retrieval(predictions_of(query, preference, groups), num_resamples=5, seed=0)
    assert recall(found, "image_to_text", k) == pytest.approx(k / 25, abs=1e-6)
    assert found["image_to_text"][f"chance_at_{k}"] == pytest.approx(k / 25, abs=1e-6)  # type: ignore[index, call-overload]


def test_random_embeddings_lie_near_chance() -> None:
    rng = np.random.default_rng(1)
    num = 400
    found = retrieval(
        predictions_of(
            rng.normal(size=(num, 32)), rng.normal(size=(num, 32)), [f"{i:03d}" for i in range(num)]
        ),
        num_resamples=5,
        seed=0,
    )
    assert recall(found, "image_to_text", 10) == pytest.approx(10 / num, abs=0.025)


def test_languages_do_not_compete_with_each_other() -> None:
    # the French picture of "a" is nearest to the English text of "b": another language, no harm
    image = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0.5, 0], [0, 0, 0, 1]]
    text = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    groups = ["a", "b", "a", "b"]
    apart = predictions_of(image, text, groups, ["en", "en", "fr", "fr"])
    pooled = predictions_of(image, text, groups, ["en"] * 4)
    assert recall(retrieval(apart, num_resamples=5, seed=0), "image_to_text", 1) == 1.0
    assert recall(retrieval(pooled, num_resamples=5, seed=0), "image_to_text", 1) < 1.0


def test_sample_without_the_modality_is_neither_query_nor_candidate() -> None:
    given = predictions_of(np.eye(4), np.eye(4), list("abcd"), has_text=[True, True, True, False])
    found = retrieval(given, num_resamples=5, seed=0)
    assert found["image_to_text"]["num_queries"] == 3  # type: ignore[index, call-overload]
    assert found["image_to_text"]["chance_at_1"] == pytest.approx(1 / 3, abs=1e-6)  # type: ignore[index, call-overload]


def test_ranks_are_the_same_in_pieces_as_by_brute_force() -> None:
    rng = np.random.default_rng(2)
    num = 300  # more than one piece of queries
    queries, candidates = rng.normal(size=(2, num, 8))
    group = rng.integers(40, size=num)
    ranks = rank_queries(queries, candidates, group)
    for i in range(0, num, 7):
        nearest = {
            g: max(queries[i] @ candidates[j] for j in np.flatnonzero(group == g)) for g in group
        }
        assert ranks.rank[i] == 1 + sum(
            value >= nearest[group[i]] - 1e-12 for g, value in nearest.items() if g != group[i]
        )


def test_nearest_groups_shows_each_caption_once_nearest_first() -> None:
    image = [[1, 0, 0], [0.9, 0.1, 0], [0, 1, 0], [0, 0, 1]]
    given = predictions_of(image, np.eye(3)[[0, 0, 1, 2]], ["a", "a", "b", "c"])
    found = nearest_groups(given, 0, "text", "image", k=3)
    assert [near.index for near in found] == [0, 2, 3]
    assert [near.is_hit for near in found] == [True, False, False]
