"""What cleaning costs: samples a second of every stage, against the bare decode in the same run.

A ratio is bare time over ours, so that 1 is free.
"""

import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import av
import cv2
import numpy as np
import soundfile
from figures import Row as Figure
from figures import row
from turns import in_turns

from mmcore.clean.audio import (
    Clipped,
    DecodeAudio,
    MaxChannels,
    MeasureAudio,
    MinMaxRate,
    MinMaxSeconds,
    Noisy,
    Silent,
)
from mmcore.clean.image import (
    Blurred,
    DecodeImage,
    Flatness,
    MaxAspect,
    MaxMegapixels,
    MeasureImage,
    MinSide,
)
from mmcore.clean.pii import MaskPii
from mmcore.clean.text import CaptionLanguage, RepairCaption
from mmcore.clean.video import (
    BlackVideo,
    DecodeVideo,
    FrameRate,
    MeasureVideo,
    SceneCuts,
    StillVideo,
    VideoSeconds,
)
from mmcore.clean.whatif import summarize, what_if
from mmcore.clean.wording import (
    CaptionLength,
    CaptionRepetition,
    CaptionSymbols,
    MeasureText,
    RemoveRepeatedLines,
)
from mmcore.core.graph import Graph
from mmcore.core.map_work import MapWork
from mmcore.core.rows import Row
from mmcore.core.runner import Run
from mmcore.core.source import Source
from mmcore.core.stage import Stage
from mmcore.core.step import Step
from mmcore.executors.local import LocalExecutor
from mmcore.ingest.folder import FolderLayout
from mmcore.ingest.work import IngestWork
from mmcore.media.audio import decode_audio
from mmcore.media.image import decode_image
from mmcore.sample import Part, Sample

ROUNDS = 6
WORDS = tuple("a small brown dog runs over the wide green field while two watch".split())  # noqa: SIM905

LIMITS: dict[str, Sequence[Stage]] = {
    "image": (DecodeImage(), MaxMegapixels(), MinSide(), MaxAspect(), Flatness(), Blurred()),
    "audio": (DecodeAudio(), MinMaxSeconds(), MinMaxRate(), MaxChannels(), Silent(), Clipped(),
              Noisy()),
    "text": (RemoveRepeatedLines(), RepairCaption(), MaskPii(), CaptionLength(),
             CaptionRepetition(), CaptionSymbols(), CaptionLanguage()),
    "video": (DecodeVideo(), VideoSeconds(), FrameRate(), StillVideo(), SceneCuts(), BlackVideo()),
}  # fmt: skip
MEASURES = {
    "image": MeasureImage(), "audio": MeasureAudio(), "text": MeasureText(), "video": MeasureVideo()
}  # fmt: skip
EXTENSIONS = {"image": "jpg", "audio": "flac", "text": "txt", "video": "mp4"}


def pictures(count: int, side: int) -> list[bytes]:
    """Return JPEGs with the detail of a photograph: noise at several scales."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        pixels = np.zeros((side * 3 // 4, side, 3), np.float32)
        for scale in (4, 16, 64):
            small = rng.integers(0, 256, (side // scale, side // scale, 3)).astype(np.uint8)
            pixels += cv2.resize(small, (side, side * 3 // 4), interpolation=cv2.INTER_CUBIC) / 3
        _, data = cv2.imencode(".jpg", pixels.clip(0, 255).astype(np.uint8))
        found.append(data.tobytes())
    return found


def sounds(count: int, seconds: float = 5.0, rate_hz: int = 16_000) -> list[bytes]:
    """Return FLAC with noise that comes and goes."""
    found = []
    for seed in range(count):
        noise = np.random.default_rng(seed).normal(size=round(seconds * rate_hz)) * 0.05
        noise *= 1 + np.sin(np.arange(len(noise)) / rate_hz * 6)
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, rate_hz, format="FLAC")
        found.append(buffer.getvalue())
    return found


def texts(count: int) -> list[bytes]:
    """Return captions of 8 to 60 words, one in ten with an address and a number."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        words = [str(word) for word in rng.choice(WORDS, rng.integers(8, 60))]
        personal = " ann@example.org +44 20 7946 0958" if seed % 10 == 0 else ""
        found.append((" ".join(words) + personal).encode())
    return found


def films(count: int, frames: int = 48) -> list[bytes]:
    """Return H.264 of two seconds, 640 x 360."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        base = cv2.resize(rng.integers(0, 256, (36, 64, 3)).astype(np.uint8), (704, 360))
        buffer = io.BytesIO()
        with av.open(buffer, "w", format="mp4") as output:
            stream = output.add_stream("libx264", rate=24, options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
            for i in range(frames):
                pixels = np.ascontiguousarray(base[:, i : i + 640])
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode())
        found.append(buffer.getvalue())
    return found


def bare_video(data: bytes) -> None:
    """Decode every frame and do nothing with it."""
    with av.open(io.BytesIO(data)) as opened:
        stream = opened.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        for _ in opened.decode(stream):
            pass


BARE: dict[str, Callable[[bytes], object]] = {
    "image": decode_image,
    "audio": decode_audio,
    "text": lambda data: data.decode("utf-8"),
    "video": bare_video,
}


def interleaved(works: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Return the median CPU seconds of each piece of work."""

    def timed(work: Callable[[], None]) -> Callable[[], float]:
        def again() -> float:
            started = time.process_time()
            work()
            return time.process_time() - started

        return again

    arms = {name: timed(work) for name, work in works.items()}
    return {name: one.median for name, one in in_turns(arms, rounds=ROUNDS, steady=None).items()}


def through(stages: Sequence[Stage], modality: str, datas: Sequence[bytes]) -> Callable[[], None]:
    """Return work that sends every sample through a chain of stages, as a step does."""
    workers = [stage.build() for stage in stages]
    extension = EXTENSIONS[modality]

    def work() -> None:
        for data in datas:
            sample = Sample("a", parts={extension: Part(data=data)})
            for worker in workers:
                outcome = worker(sample)
                if not isinstance(outcome, Sample):
                    break
                sample = outcome

    return work


def measure(modality: str, datas: Sequence[bytes], name: str) -> list[Figure]:
    """Return a row for each stage alone, for measuring, and for measuring and every limit."""
    limits = LIMITS[modality]
    chain = (*limits[:3], MEASURES[modality], *limits[3:]) if modality == "text" else (
        MEASURES[modality], *limits)  # fmt: skip

    def bare() -> None:
        for data in datas:
            BARE[modality](data)

    works = {"bare": bare}
    works |= {type(one).__name__: through([one], modality, datas) for one in limits}
    works["measure"] = through([MEASURES[modality]], modality, datas)
    works["measure and all limits"] = through(chain, modality, datas)
    seconds = interleaved(works)
    reference = len(datas) / seconds["bare"]
    rows = []
    for work, took in seconds.items():
        goal = 0.8 if work == "measure and all limits" and modality in ("image", "video") else None
        rows.append(row(f"{name}: {work}, samples/s", len(datas) / took, reference, goal=goal,
                        better="higher", value=seconds["bare"] / took))  # fmt: skip
    return rows


def moving_a_limit(datas: Sequence[bytes]) -> Figure:
    """Return the rate of asking what another limit would keep, against decoding again."""
    before = [MeasureImage(), MinSide(min_side=32)]
    after = [MeasureImage(), MinSide(min_side=600)]
    again = through(after, "image", datas)
    measured = MEASURES["image"].build()
    rows = []
    for i, data in enumerate(datas):
        sample = measured(Sample(f"{i}", parts={"jpg": Part(data=data)}))
        assert isinstance(sample, Sample)
        rows.append(Row(Sample(sample.key, parts={"jpg": Part()}, scores=sample.scores), "kept"))

    def ask() -> None:
        summarize(what_if(rows, before, after))

    seconds = interleaved({"again": again, "ask": ask})
    ours, reference = len(datas) / seconds["ask"], len(datas) / seconds["again"]
    return row("a limit moved: asked / decoded again, samples/s", ours, reference, goal=20,
               better="higher", value=ours / reference)  # fmt: skip


def moving_a_limit_in_a_step(datas: Sequence[bytes]) -> Figure:
    """Return the rate of cleaning with another limit after a run, against the first run."""
    with tempfile.TemporaryDirectory() as directory:
        corpus = Path(directory, "corpus")
        corpus.mkdir()
        for i in range(200):
            (corpus / f"{i:03d}.jpg").write_bytes(datas[i % len(datas)][:-2] + bytes([i, 255, 217]))
        first = _cleaned(corpus, directory, min_side=32)
        second = median(_cleaned(corpus, directory, min_side=600 + i) for i in range(ROUNDS))
    return row("a limit moved: step again / step at first, samples/s", 200 / second, 200 / first,
               goal=20, better="higher", value=first / second)  # fmt: skip


def _cleaned(corpus: Path, root: str, *, min_side: int) -> float:
    """Return how long the step took."""
    stages = (MeasureImage(), MinSide(min_side=min_side))
    ingest = Step("ingest", IngestWork(layout=FolderLayout()), ("scan",))
    clean = Step("clean", MapWork(step="clean", samples_from="ingest", stages=stages), ("ingest",))
    run = Run(Graph("bench", Source(str(corpus)), (ingest, clean)), root=root,
              executor=LocalExecutor(num_workers=1))  # fmt: skip
    return run.run()["clean"].seconds


def figures(num: int) -> list[Figure]:
    """Return a row for every stage, of made pictures, sounds, texts and films."""
    large = pictures(max(1, num // 8), 2_048)
    return [
        *measure("image", pictures(num, 500), "JPEG, 500 px"),
        *measure("image", large, "JPEG, 2048 px"),
        moving_a_limit(large),
        moving_a_limit_in_a_step(large),
        *measure("audio", sounds(num), "FLAC, 5 s"),
        *measure("text", texts(7 * num), "text, 8 to 60 words"),
        *measure("video", films(max(1, num // 20)), "H.264, 640 x 360, 2 s"),
    ]
