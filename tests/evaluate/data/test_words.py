"""Every reason is said in words."""

import ast
from collections.abc import Iterator
from pathlib import Path

import mmcore
from mmcore.core.decoder_limits import DEATHS
from mmcore.evaluate.data.words import REASONS, SCORES, reason_words, score_words

PLACES = {"Dropped": 1, "Quarantined": 1, "SampleError": 0, "TarBroken": 0, "_Failed": 0}
"""Where the reason stands among the arguments."""


def reasons_in_code() -> Iterator[str]:
    for file in Path(mmcore.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                place = PLACES.get(node.func.id, len(node.args))
                if place < len(node.args) and isinstance(node.args[place], ast.Constant):
                    yield str(ast.literal_eval(node.args[place]))


def test_every_reason_that_the_code_gives_has_words() -> None:
    found = set(reasons_in_code())
    assert len(found) > 60
    assert sorted((found | DEATHS) - REASONS.keys()) == []


def test_reasons_that_are_made_up_on_the_way_have_words_too() -> None:
    assert reason_words("audio_missing") == "there is no sound"
    assert reason_words("category_not_wanted") == "the category is not among those wanted"
    assert reason_words("near_duplicate_video") == "the film is nearly that of another sample"
    assert reason_words("too_blue_for_us") == "too blue for us"


def test_scores_have_words() -> None:
    assert score_words("image_width") == SCORES["image_width"]
    assert score_words("image_brightness") == "image brightness"
