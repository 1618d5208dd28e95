"""Which scores the limits of a recipe look at, as the manifests of its steps name them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcore.core.stage import class_rule
from mmcore.core.step import Artifact

LIMITS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("min_side", "min_side"): ("image_width", "image_height"),
    ("max_aspect", "max_aspect"): ("image_aspect",),
    ("flatness", "min_std"): ("image_std",),
    ("blurred", "min_sharpness"): ("image_sharpness",),
    ("caption_language", "min_confidence"): ("language_confidence",),
    ("caption_length", "min_chars"): ("caption_chars",),
    ("caption_length", "max_chars"): ("caption_chars",),
    ("caption_length", "min_words"): ("caption_words",),
    ("caption_length", "max_words"): ("caption_words",),
    ("caption_repetition", "max_words"): ("caption_repeated_words",),
    ("caption_repetition", "max_chars"): ("caption_repeated_chars",),
    ("caption_repetition", "max_lines"): ("caption_repeated_lines",),
    ("caption_symbols", "max_symbols"): ("caption_symbol_fraction",),
    ("caption_symbols", "max_digits"): ("caption_digit_fraction",),
    ("min_max_seconds", "min_seconds"): ("audio_seconds",),
    ("min_max_seconds", "max_seconds"): ("audio_seconds",),
    ("min_max_rate", "min_rate_hz"): ("audio_rate_hz",),
    ("min_max_rate", "max_rate_hz"): ("audio_rate_hz",),
    ("max_channels", "max_channels"): ("audio_channels",),
    ("silent", "min_rms_dbfs"): ("audio_rms_dbfs",),
    ("clipped", "max_fraction"): ("audio_clipped_fraction",),
    ("noisy", "min_snr_db"): ("audio_snr_db",),
    ("video_seconds", "min_seconds"): ("video_seconds",),
    ("video_seconds", "max_seconds"): ("video_seconds",),
    ("frame_rate", "min_fps"): ("video_fps",),
    ("frame_rate", "max_fps"): ("video_fps",),
    ("still_video", "min_motion"): ("video_motion",),
    ("scene_cuts", "max_cuts"): ("video_cuts",),
    ("black_video", "max_fraction"): ("video_black_fraction",),
    ("image_text_agreement", "min_agreement"): ("image_text_agreement",),
    ("audio_text_agreement", "min_agreement"): ("audio_text_agreement",),
}
"""By rule and field the scores that are compared with it; a sample may pass no lower (`min_`) or
no higher (`max_`) than the field says. Two scores of one picture are drawn with the same limit."""
_OURS = "mmcore."


@dataclass(frozen=True, order=True)
class Limit:
    """A value that a score may not pass."""

    score: str
    rule: str
    field: str
    value: float

    @property
    def is_least(self) -> bool:
        """Whether lower values are refused, and not higher ones."""
        return self.field.startswith("min_")


def limits_of(chains: Sequence[Mapping[str, Artifact]], scores: Sequence[str]) -> list[Limit]:
    """Return the limits that the newest increment held scores to.

    Of a stage of somebody's own, a field `min_NAME` or `max_NAME` is taken for a limit of the one
    score that ends in NAME.
    """
    found = {
        Limit(score, class_rule(str(stage.get("stage"))), name, float(value))
        for artifact in (chains[-1].values() if chains else ())
        for stage in _stages(artifact)
        for name, value in stage.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
        for score in _looked_at(str(stage.get("stage")), name, scores)
    }
    return sorted(found)


def _stages(artifact: Artifact) -> Iterator[Mapping[str, Any]]:
    work: Any = artifact.manifest.identity.get("work")
    stages = work.get("stages") if isinstance(work, dict) else None
    yield from (stage for stage in stages or () if isinstance(stage, dict))


def _looked_at(stage: str, name: str, scores: Sequence[str]) -> Sequence[str]:
    if stage.startswith(_OURS):
        known = LIMITS.get((class_rule(stage), name), ())
        return [score for score in known if score in scores]
    if not name.startswith(("min_", "max_")):
        return ()
    ending = name[4:]
    fitting = [one for one in scores if one == ending or one.endswith(f"_{ending}")]
    return fitting if len(fitting) == 1 else ()
