"""Files that want more than they may have: each is a sample with a reason, and nothing else."""

import resource
from collections.abc import Iterator

import hostile_files
import pytest
from hostile_files import BOMBS

from mmcore.core.decoder import borrowed, close_idle
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.map_work import StageChain
from mmcore.encode.audio import EncodeAudio
from mmcore.encode.image import EncodeImage
from mmcore.encode.text import EncodeText
from mmcore.encode.video import EncodeVideo
from mmcore.sample import Outcome, Part, Quarantined, Sample

STAGES = (EncodeImage(), EncodeAudio(), EncodeText(), EncodeVideo(seconds=1.0))
GIB = 2**30


@pytest.fixture(scope="module", autouse=True)
def _end_what_was_started() -> Iterator[None]:
    yield
    close_idle()


def largest_child() -> int:
    """The most memory in bytes that any child had so far, those of other tests too."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def outcomes_of(files: dict[str, tuple[str, bytes]], limits: DecoderLimits) -> dict[str, Outcome]:
    samples = [Sample(name, {kind: Part(data=data)}) for name, (kind, data) in files.items()]
    with borrowed([StageChain(STAGES, {})]) as decoder:
        outcomes = [outcome for _, outcome in decoder.outcomes(0, samples, limits)]
    return dict(zip(files, outcomes, strict=True))


def test_every_bomb_is_quarantined_with_a_reason_within_a_gibibyte() -> None:
    before = largest_child()
    files = {name: (kind, make()) for name, (kind, make) in BOMBS.items()}
    files["sound_text"] = ("txt", b"a blue bird")
    found = outcomes_of(files, DecoderLimits(seconds=10))
    assert isinstance(found.pop("sound_text"), Sample)
    reasons = {
        name: one.reason if isinstance(one, Quarantined) else "kept" for name, one in found.items()
    }
    assert reasons == {
        "png_of_400_megapixels": "image_over_limit",
        "png_with_text_that_grows": "image_undecodable",
        "gif_of_4_gigapixels": "image_over_limit",
        "tiff_of_16_gigapixels": "image_over_limit",
        "webp_of_268_megapixels": "image_over_limit",
        "jpeg_of_4_gigapixels": "image_over_limit",
        "svg_of_a_billion_laughs": "image_format_refused",
        "svg_that_asks_elsewhere": "image_format_refused",
        "wav_of_4_gigabytes": "audio_truncated",
        "flac_that_says_a_day": "audio_over_limit",
        "mp4_of_4_gigapixels": "video_undecodable",
        "text_of_40_megabytes": "text_over_limit",
    }
    assert largest_child() < max(GIB, before + 1)


def test_a_picture_at_the_limit_decodes_and_its_neighbour_beyond_the_memory_does_not() -> None:
    before = largest_child()
    files = {
        "fits": ("png", hostile_files.png_at_the_limit()),
        "frames": ("gif", hostile_files.gif_of_a_million_frames()),
    }
    found = outcomes_of(files, DecoderLimits())
    assert [type(one) for one in found.values()] == [Sample, Sample]
    small = outcomes_of({"fits": files["fits"]}, DecoderLimits(memory_mb=300))["fits"]
    assert isinstance(small, Quarantined)
    assert (small.reason, small.detail) == ("decoder_memory", "needs more than 300 MB")
    assert largest_child() < max(GIB, before + 1)


def test_work_without_end_is_ended() -> None:
    files = {"scans": ("jpg", hostile_files.jpeg_of_ten_thousand_scans()), "after": ("txt", b"x")}
    found = outcomes_of(files, DecoderLimits(seconds=1, seconds_per_mb=0))
    assert isinstance(found["scans"], Quarantined)
    assert found["scans"].reason == "decoder_timeout"
    assert isinstance(found["after"], Sample)
