"""A small real dataset: pictures with captions and sound, and samples that are left out.

Made by the steps of a recipe, in this process. Of twenty-nine samples twenty-four are kept; one is
too small, two lose to a twin, a drawing with a script in it and a broken picture are quarantined.
"""

import io
import wave
from pathlib import Path

import av
import numpy as np
from PIL import Image

from mmcore.core.runner import ignore_event
from mmcore.executors.local import LocalExecutor
from mmcore.recipe.build import load_recipe
from mmcore.recipe.execute import open_run

NAME = "small"
SCRIPT = '<script>document.title = "pwned"</script><img src=x onerror=alert(1)>'
"""A caption that would like to be run."""
NUM_KEPT = 24
NUM_LEFT_OUT = 5
_RECIPE = """\
name: {name}
max_quarantined: 0.5
source:
  path: {corpus}
  samples_per_task: 8
  layout: {{use: folder, label_from: folder, licence: CC0-1.0, language: en}}
clean:
{clean}
dedup: {{same: [{same}]}}
split: {{together: [{same}], fractions: {{train: 0.6, val: 0.2, test: 0.2}}}}
shard: {{samples_per_shard: 8}}
"""


def write_corpus(directory: Path, *, first: int = 0, num: int = NUM_KEPT) -> Path:
    """Write sound samples of two classes, numbered from `first`."""
    for number in range(first, first + num):
        folder = directory / ("birds" if number % 2 else "boats")
        folder.mkdir(parents=True, exist_ok=True)
        caption = SCRIPT if number == 3 else f"Picture number {number} of a {folder.name[:-1]}."
        write_sample(folder / f"sample-{number:03d}", png(number), caption, number)
    return directory


def write_left_out(directory: Path) -> Path:
    """Write the samples that do not come into the dataset."""
    folder = directory / "birds"
    write_sample(folder / "tiny", png(900, side=8), "A tiny one.", 900)
    write_sample(folder / "twin-of-1", png(1), "The first one again.", 901)
    write_sample(folder / "twin-of-5", png(5), "The fifth one again.", 902)
    write_sample(folder / "broken", png(903)[:60], "A broken one.", 903)
    drawing = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    write_sample(folder / "drawing", drawing, "A drawing.", 904, extension="svg")
    return directory


def write_sample(
    stem: Path, picture: bytes, caption: str, number: int, *, extension: str = "png"
) -> None:
    """Write the three parts of a sample."""
    stem.with_suffix(f".{extension}").write_bytes(picture)
    stem.with_suffix(".txt").write_text(caption)
    stem.with_suffix(".wav").write_bytes(tone(220.0 + number))


def png(seed: int, *, side: int = 48) -> bytes:
    """Return a picture that no other seed gives."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 255, (side, side, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def tone(pitch: float) -> bytes:
    """Return a quarter of a second of sound."""
    samples = (np.sin(2 * np.pi * pitch * np.arange(2000) / 8000) * 12000).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def clip(seed: int) -> bytes:
    """Return a second of video that a browser plays."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(10):
            pixels = np.full((64, 64, 3), (seed * 40 + number * 10) % 255, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


def run_small(corpus: Path, root: Path, *, name: str = NAME, has_video: bool = False) -> str:
    """Run the recipe over a corpus as it is now; return the dataset version that came of it."""
    clean = "  {}" if has_video else "  decode_image:\n  min_side: {min_side: 16}\n  decode_audio:"
    recipe = root.parent / f"{name}.yaml"
    same = "video" if has_video else "image"
    recipe.write_text(_RECIPE.format(name=name, corpus=corpus, clean=clean, same=same))
    loaded = load_recipe(str(recipe))
    with open_run(loaded, root=str(root), executor=LocalExecutor(), listener=ignore_event) as (
        run,
        _,
    ):
        return run.run()["shard"].artifact.url.rsplit("/", 1)[-1]


def write_clips(directory: Path) -> Path:
    """Write a corpus of three videos."""
    directory.mkdir()
    for number in range(5):
        folder = directory / "waves"
        folder.mkdir(exist_ok=True)
        (folder / f"clip-{number}.mp4").write_bytes(clip(number))
        (folder / f"clip-{number}.txt").write_text(f"Clip {number} of the sea.")
    return directory
