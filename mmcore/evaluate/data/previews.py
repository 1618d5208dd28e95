"""Small pictures, first seconds and first words of examples: what stays when the source is gone.

The bytes come from outside, so they are decoded in the decoder process like all others.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mmcore.core.decoder import borrowed
from mmcore.core.decoder_limits import DecoderLimits
from mmcore.core.map_work import StageChain
from mmcore.core.rows import load_part
from mmcore.core.stage import Stage, Worker
from mmcore.errors import IntegrityError, SampleError, StorageError
from mmcore.media.array import Pixels
from mmcore.media.audio import decode_audio, encode_flac, resample
from mmcore.media.image import decode_image, encode_webp
from mmcore.media.resize import fit_within
from mmcore.media.text import decode_text
from mmcore.media.video import decode_frames
from mmcore.sample import Outcome, Part, Sample, modality_of

MAX_SIDE = 160
MAX_SOUND_SECONDS = 3.0
SOUND_HZ = 11_025
MAX_CHARS = 240
MAX_PART_BYTES = 64 << 20
"""What is larger is not read for a preview."""
_QUALITY = 75
_LACKS = "preview_lacks"
_PICTURE, _SOUND, _WORDS = "picture.webp", "sound.flac", "words.txt"


@dataclass(frozen=True, kw_only=True)
class Preview(Stage):
    """Put previews of its parts in the place of a sample's parts; say what there is none of."""

    reads = ("image", "text", "audio", "video")
    max_side: int = MAX_SIDE
    max_seconds: float = MAX_SOUND_SECONDS
    max_chars: int = MAX_CHARS

    def build(self) -> Worker:
        makers = {
            "image": (_PICTURE, self._picture),
            "video": (_PICTURE, self._first_frame),
            "audio": (_SOUND, self._sound),
            "text": (_WORDS, self._words),
        }

        def preview(sample: Sample) -> Outcome:
            made: dict[str, Part] = {}
            lacks: list[str] = []
            for modality, (name, make) in makers.items():
                extension = sample.extension(modality)
                if extension is None or name in made:
                    continue
                try:
                    made[name] = Part(data=make(sample.data(extension)))
                except SampleError as error:
                    lacks.append(f"{extension}: {error.reason}")
            return replace(sample, parts=made).with_meta(**{_LACKS: ", ".join(lacks)})

        return preview

    def _picture(self, data: bytes) -> bytes:
        return self._webp(decode_image(data))

    def _words(self, data: bytes) -> bytes:
        return decode_text(data)[: self.max_chars].encode()

    def _webp(self, image: Pixels) -> bytes:
        return encode_webp(fit_within(image, self.max_side), quality=_QUALITY)

    def _first_frame(self, data: bytes) -> bytes:
        for _, frame in decode_frames(data):
            return self._webp(frame)
        raise SampleError("video_empty", "there is no frame")

    def _sound(self, data: bytes) -> bytes:
        waveform, rate_hz = decode_audio(data)
        start = waveform[: int(self.max_seconds * rate_hz)]
        small_hz = min(rate_hz, SOUND_HZ)
        return encode_flac(np.clip(resample(start, rate_hz, small_hz), -1.0, 1.0), small_hz)


@dataclass(frozen=True)
class Shown:
    """What can be seen and heard of a sample; empty where there is nothing."""

    picture: bytes = b""
    """WebP."""
    sound: bytes = b""
    """FLAC."""
    words: str = ""
    lacks: str = ""
    """What there is no preview of, and why."""


def previews(samples: Iterable[tuple[Sample, Mapping[str, str]]]) -> Iterator[Shown]:
    """Yield previews of samples, each with where its bytes lie; a part that is gone is said to be.

    A sample that is too much for the decoder has none, and costs no other its own.
    """
    with borrowed([StageChain((Preview(),), {})]) as decoder:
        for sample, bases in samples:
            loaded, gone = _loaded(sample, bases)
            ((_, outcome),) = decoder.outcomes(0, [loaded], DecoderLimits())
            if not isinstance(outcome, Sample):
                yield Shown(lacks=outcome.reason)
                continue
            data = {name: part.data or b"" for name, part in outcome.parts.items()}
            said = [*gone, *filter(None, [str(outcome.meta.get(_LACKS) or "")])]
            yield Shown(
                picture=data.get(_PICTURE, b""),
                sound=data.get(_SOUND, b""),
                words=data.get(_WORDS, b"").decode("utf-8", "replace"),
                lacks=", ".join(said),
            )


def _loaded(sample: Sample, bases: Mapping[str, str]) -> tuple[Sample, Sequence[str]]:
    """Return a sample with what is looked at of it in memory and nothing else, and what is gone."""
    parts: dict[str, Part] = {}
    gone: list[str] = []
    for modality in Preview.reads:
        extension = sample.extension(modality)
        if extension is None:
            continue
        part = sample.parts[extension]
        if part.ref is not None and part.ref.num_bytes > MAX_PART_BYTES:
            gone.append(f"{extension}: too large for a preview")
            continue
        try:
            parts[extension] = Part(data=load_part(part, bases))
        except KeyError:
            gone.append(f"{extension}: nobody knows where the source lies")
        except (StorageError, IntegrityError):
            gone.append(f"{extension}: no longer where it was")
    assert all(modality_of(name) in Preview.reads for name in parts), "nothing else is loaded"
    return Sample(sample.key, parts), gone
