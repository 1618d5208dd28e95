import json
import math

import pytest

from mmcore.errors import StepError
from mmcore.sample import Json, Sample
from mmcore.shard.document import document, schema_of


def documents(*samples: Sample) -> list[dict[str, Json]]:
    schema = schema_of(samples)
    return [json.loads(document(sample, schema)) for sample in samples]


def with_meta(**meta: Json) -> Sample:
    return Sample("k", meta=meta)


def test_every_document_has_the_same_fields_of_the_same_types() -> None:
    one, two = documents(with_meta(a="x", b=1, c=0.5, e=True), with_meta(d=None, b=None, c=2))
    assert one == {"a": "x", "b": 1, "c": 0.5, "d": "", "e": 1}
    assert two == {"a": "", "b": -1, "c": 2.0, "d": "", "e": -1}
    assert {name: type(value) for name, value in one.items()} == {
        name: type(value) for name, value in two.items()
    }


def test_bool_that_is_always_known_stays_a_bool() -> None:
    assert documents(with_meta(a=True), with_meta(a=False)) == [{"a": True}, {"a": False}]


def test_lists_and_objects_become_json_text() -> None:
    one, two = documents(with_meta(a=[], b={"y": 1, "x": 2}), with_meta(a=[1, None], b={}))
    assert one == {"a": "[]", "b": '{"x":2,"y":1}'}
    assert two == {"a": "[1,null]", "b": "{}"}


@pytest.mark.parametrize(("value", "text"), [(1, "1"), (False, "false"), (2**63, str(2**63))])
def test_field_of_several_types_becomes_text(value: Json, text: str) -> None:
    assert documents(with_meta(a="x"), with_meta(a=value))[1] == {"a": text}


def test_integer_that_no_column_holds_becomes_text() -> None:
    assert documents(with_meta(a=2**63), with_meta(a=1)) == [{"a": str(2**63)}, {"a": "1"}]


def test_score_that_is_lacking_or_not_finite_is_minus_one() -> None:
    one, two, three = documents(
        Sample("a", scores={"sharpness": 2.0}),
        Sample("b", scores={"sharpness": math.nan, "loudness": 1}),
        Sample("c", scores={"loudness": math.inf}),
    )
    assert one == {"scores": {"loudness": -1.0, "sharpness": 2.0}}
    assert two == {"scores": {"loudness": 1.0, "sharpness": -1.0}}
    assert three == {"scores": {"loudness": -1.0, "sharpness": -1.0}}


def test_samples_without_scores_have_no_empty_object() -> None:
    assert documents(with_meta(a="x")) == [{"a": "x"}]


def test_metadata_field_called_scores_is_refused() -> None:
    with pytest.raises(StepError, match="Rename the field"):
        schema_of([with_meta(scores=1)])
