"""Small samples with a picture, a sound and a text, and what stages with a model make of them."""

import io
from collections.abc import Sequence

import numpy as np
import soundfile
from PIL import Image

from mmcore.core.stage import BatchStage
from mmcore.media.array import array_of
from mmcore.sample import Outcome, Part, Sample

TEXTS = ("a blue bird", "a red bird", "frogs in the rain")


def sample_of(seed: int) -> Sample:
    draw = np.random.default_rng(seed)
    picture, sound = io.BytesIO(), io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(picture, "PNG")
    waveform = draw.normal(0, 0.1, 5_000 + 400 * seed)
    soundfile.write(sound, waveform, 16_000, format="WAV")
    parts = {"png": picture.getvalue(), "wav": sound.getvalue(), "txt": TEXTS[seed % 3].encode()}
    return Sample(f"s{seed}", {name: Part(data=data) for name, data in parts.items()})


SAMPLES = [sample_of(seed) for seed in range(5)]


def asked(stage: BatchStage, samples: Sequence[Sample] = SAMPLES) -> list[Outcome]:
    prepare, work = stage.build(), stage.build_batch()
    prepared = [prepare(sample) for sample in samples]
    batches = range(0, len(samples), stage.batch_size)
    return [one for at in batches for one in work(prepared[at : at + stage.batch_size])]  # type: ignore[arg-type]


def vectors(stage: BatchStage, samples: Sequence[Sample] = SAMPLES) -> np.ndarray:
    found = asked(stage, samples)
    assert all(isinstance(one, Sample) for one in found)
    return np.stack(
        [
            array_of(part.data)
            for one in found
            for name, part in one.parts.items()  # type: ignore[union-attr]
            if name.endswith("_embedding.npy") and part.data is not None
        ]
    )
