"""Other limits over stored scores: what a run with them would have said."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from mmcore.clean.audio import DecodeAudio, MeasureAudio, Silent
from mmcore.clean.image import Blurred, DecodeImage, Flatness, MeasureImage, MinSide
from mmcore.clean.parts import KeepParts, KeepValues, RequireParts
from mmcore.clean.text import CaptionLanguage, RepairCaption
from mmcore.clean.whatif import MAX_EXAMPLES, Change, summarize, what_if
from mmcore.clean.wording import CaptionLength, MeasureText
from mmcore.core.rows import Row
from mmcore.core.stage import Stage, rule_name
from mmcore.errors import SampleError
from mmcore.media.audio import encode_wav
from mmcore.sample import Dropped, Part, Quarantined, Sample


def png(side: int, noise: int = 100) -> bytes:
    pixels = np.random.default_rng(side).integers(0, noise + 1, (side, side, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def wav(level: float) -> bytes:
    return encode_wav(np.full(800, level, np.float32), 8_000)


def corpus() -> list[Sample]:
    """Pictures of 8 to 64 pixels, some flat, some broken, some without sound or caption."""
    samples = []
    for i in range(24):
        parts = {"png": png(8 * (1 + i % 8), noise=2 if i % 5 == 0 else 100)}
        if i % 6 == 5:
            parts["png"] = parts["png"][:60]
        if i % 3:
            parts["wav"] = wav(0.0 if i % 4 == 0 else 0.5)
        if i != 7:
            parts["txt"] = b"A cat." if i % 2 else b"A very small brown dog is running."
        meta = {"label": "cat" if i % 2 else "dog"}
        loaded = {extension: Part(data=data) for extension, data in parts.items()}
        samples.append(Sample(f"{i:02}", parts=loaded, meta=meta))
    return samples


def run(samples: Sequence[Sample], stages: Sequence[Stage]) -> list[Row]:
    """What a step writes: the fate of each sample, without its bytes."""
    chain = [(rule_name(stage), stage.build()) for stage in stages]
    return [_row(sample, chain) for sample in samples]


def _row(sample: Sample, chain: Sequence[tuple[str, object]]) -> Row:
    for rule, worker in chain:
        try:
            outcome = worker(sample)  # type: ignore[operator]
        except SampleError as error:
            return Row(_bare(sample), "quarantined", error.reason, error.detail, rule)
        if isinstance(outcome, Dropped | Quarantined):
            status = "dropped" if isinstance(outcome, Dropped) else "quarantined"
            return Row(_bare(outcome.sample), status, outcome.reason, outcome.detail, rule)
        sample = outcome
    return Row(_bare(sample), "kept")


def _bare(sample: Sample) -> Sample:
    parts = {extension: Part() for extension in sample.parts}
    return Sample(sample.key, parts=parts, meta=sample.meta, scores=sample.scores)


def measured_first(
    *, side: int = 16, std: float = 2.0, words: int = 1, required: tuple[str, ...] = ("image",)
) -> list[Stage]:
    return [
        RequireParts(required=required, optional=("audio",)),
        RepairCaption(),
        MeasureImage(),
        MeasureText(),
        MeasureAudio(),
        MinSide(min_side=side),
        Flatness(min_std=std),
        CaptionLength(min_words=words),
        Silent(),
    ]


BEFORE = measured_first()


def verdicts(changes: Sequence[Change]) -> dict[str, tuple[str, str]]:
    return {change.key: (change.after.status, change.after.reason) for change in changes}


@pytest.mark.parametrize(
    "after",
    [
        BEFORE,
        measured_first(side=8),
        measured_first(side=40),
        measured_first(std=0.0),
        measured_first(side=8, std=30.0, words=3),
        measured_first(required=("image", "text")),
        measured_first(required=("text",)),
        [*BEFORE, KeepValues(field="label", values=("cat",))],
        [stage for stage in BEFORE if not isinstance(stage, MinSide)],
        [*BEFORE, Blurred(min_sharpness=3_000.0)],
    ],
)
def test_prediction_is_what_a_run_with_the_other_limits_says(after: list[Stage]) -> None:
    before, wanted = run(corpus(), BEFORE), run(corpus(), after)
    changes = list(what_if(before, BEFORE, after))
    assert verdicts(changes) == {row.sample.key: (row.status, row.reason) for row in wanted}
    assert [change.before.reason for change in changes] == [row.reason for row in before]


def test_details_are_those_of_the_run() -> None:
    after = measured_first(side=40)
    wanted = {row.sample.key: (row.detail, row.rule) for row in run(corpus(), after)}
    changes = what_if(run(corpus(), BEFORE), BEFORE, after)
    assert {one.key: (one.after.detail, one.after.rule) for one in changes} == wanted


def test_scores_that_were_never_measured_are_unknown() -> None:
    before = [DecodeImage(), MinSide(min_side=16), Flatness()]
    after = [DecodeImage(), MinSide(min_side=8), Flatness()]
    rows = run([Sample("a", parts={"png": Part(data=png(8))})], before)
    (change,) = what_if(rows, before, after)
    assert (change.before.reason, change.after.status) == ("image_too_small", "unknown")
    assert change.after.rule == "flatness"


def test_stage_that_needs_bytes_is_known_for_those_that_passed_it() -> None:
    before: list[Stage] = [RepairCaption(), CaptionLength(min_words=3)]
    sample = Sample("a", parts={"txt": Part(data=b"A cat.")})
    rows = run([sample], before)
    (change,) = what_if(rows, before, [RepairCaption(), CaptionLength(min_words=2)])
    assert change.after.status == "kept"
    (change,) = what_if(rows, before, [RepairCaption(max_chars=9), CaptionLength(min_words=2)])
    assert (change.after.status, change.after.rule) == ("unknown", "repair_caption")


def test_broken_sample_stays_broken() -> None:
    before: list[Stage] = [DecodeImage(), MinSide()]
    rows = run([Sample("a", parts={"png": Part(data=b"\x89PNG\r\n\x1a\n")})], before)
    (change,) = what_if(rows, before, [DecodeImage(), MinSide(min_side=1)])
    assert (change.after.status, change.after.reason) == ("quarantined", "image_undecodable")


def test_a_part_that_was_left_out_behind_a_rule_is_not_missed_by_it() -> None:
    before: list[Stage] = [
        RequireParts(required=("image", "text")),
        MeasureImage(),
        KeepParts(modalities=("text",)),
    ]
    rows = run([s for s in corpus() if s.key == "01"], before)
    (change,) = what_if(rows, before, [*before, MinSide(min_side=8)])
    assert change.after.status == "kept"


def test_limit_on_an_optional_part_keeps_the_sample() -> None:
    before: list[Stage] = [RequireParts(optional=("audio",)), DecodeAudio(), Silent()]
    after = [*before[:2], Silent(min_rms_dbfs=0.0)]
    rows = run([Sample("a", parts={"wav": Part(data=wav(0.5))})], before)
    (change,) = what_if(rows, before, after)
    assert change.after.status == "kept"
    (change,) = what_if(rows, before, after[1:])
    assert change.after.reason == "audio_silent"


def test_of_two_stages_of_a_class_the_one_that_refused_is_found() -> None:
    before: list[Stage] = [MinSide(min_side=4), RepairCaption(), MinSide(min_side=16)]
    parts = {"png": Part(data=png(8)), "txt": Part(data=b"A cat.")}
    rows = run([Sample("a", parts=parts)], before)
    (change,) = what_if(rows, before, before[:2])
    assert change.after.status == "kept"


def test_language_is_decided_by_what_was_guessed() -> None:
    before: list[Stage] = [CaptionLanguage()]
    text = b"Un petit chien brun court dans le champ vert avec ses amis."
    rows = run([Sample("a", parts={"txt": Part(data=text)})], before)
    (change,) = what_if(rows, before, [CaptionLanguage(languages=("en",))])
    assert change.after.reason == "language_not_wanted"


def test_summary_counts_both_sides_and_what_moved() -> None:
    samples = [Sample(f"{i:02}", parts={"png": Part(data=png(i))}) for i in range(1, 41)]
    before: list[Stage] = [MeasureImage(), MinSide(min_side=11)]
    after: list[Stage] = [MeasureImage(), MinSide(min_side=36), Flatness(min_std=0.0)]
    summary = summarize(what_if(run(samples, before), before, after))
    assert summary.num_samples == 40
    assert summary.before == {"image_too_small": 10, "kept": 30}
    assert summary.after == {"image_too_small": 35, "kept": 5}
    assert (summary.num_gained, summary.num_lost, summary.num_unknown) == (0, 25, 0)
    assert len(summary.lost) == MAX_EXAMPLES
    assert summary.lost[0].key == "11"
    back = summarize(what_if(run(samples, after), after, before))
    assert (back.num_gained, back.num_lost) == (25, 0)


def test_no_rows_are_no_changes() -> None:
    summary = summarize(what_if([], BEFORE, BEFORE))
    assert (summary.num_samples, summary.before, summary.after) == (0, {}, {})
