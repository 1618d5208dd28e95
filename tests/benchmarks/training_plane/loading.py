"""Loading: shuffled, decoded, batched; and going on late in an epoch against early in it.

Square JPEGs of 256 px, quality 90, with a caption and a JSON document beside each, in shards on tmpfs.
Nothing that was decoded is kept and nothing is augmented, in any arm. Seconds of the processor, of
this process and of the reader process, which is left alone until it is at rest. Bare is a loop of `simplejpeg.decode_jpeg` over bytes in
memory, and checks nothing.
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import simplejpeg
from figures import Against, Row, row
from tokenizers import Tokenizer, models
from turns import Taken, in_turns, interval, shared_memory

from mmcore.core.manifest import Counts, FileRecord, Manifest
from mmcore.core.step import Artifact, Inputs
from mmcore.load.augment import AudioAugment, ImageAugment
from mmcore.load.batches import MultimodalLoader, OpenMultimodal
from mmcore.sample import sha256_hex
from mmcore.shard.table import StoredPart, StoredSample, to_parquet
from mmcore.shard.tar import TarWriter

SIDE = 256
QUALITY = 90
BATCH = 64
PER_SHARD = 256
PASSES = 2
SEEKS = 20
_LOOK_SECONDS = 0.1
TIMES_LONGER = 100
"""The table of `seek` names every sample so often: an epoch is that much longer."""
STILL = ImageAugment(
    max_degrees=0, scale=0, stretch=0, shift=0, flip=0, colour=0, swap_channels=0, grey=0, erase=0
)
SILENT = AudioAugment(speed=0, max_band_shift=0, num_masks=0)
LOADER = MultimodalLoader(
    image_side=SIDE, image_augment=STILL, audio_augment=SILENT, max_cache_bytes=0, workers=0
)


def loading(num_samples: int) -> list[Row]:
    """Return pictures a second of one core."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as directory:
        bench = Loading(Path(directory), num_samples)
        taken = in_turns(
            {
                "bare": bench.bare,
                "ours": lambda: bench.ours(bench.here),
                "ours, in a reader process": lambda: bench.ours(bench.there),
                "webdataset": bench.webdataset,
            }
        )
        bench.close()

    def of(what: str, mine: str, other: str, goal: float | None, against: Against = "bare") -> Row:
        ours, reference = taken[mine], taken[other]
        return row(what, num_samples / ours.median, num_samples / reference.median, goal=goal,
                   better="higher", value=reference.median / ours.median, against=against,
                   note=interval(ours, reference))  # fmt: skip

    process = "ours, in a reader process"
    num_samples = PASSES * bench.num
    return [
        of("loading / decoding alone, pictures/s", "ours", "bare", 0.92),
        of("loading in a reader process / decoding alone", process, "bare", 0.92),
        of("loading / webdataset 1.0.2", "ours", "webdataset", 2.2, "peer"),
        of("loading in a reader process / webdataset", process, "webdataset", 2.2, "peer"),
    ]


def seek(num_samples: int) -> list[Row]:
    """Return seconds until the first batch, at 90 % of an epoch and at 1 % of it."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as directory:
        inputs = write_dataset(Path(directory), num_samples, times=TIMES_LONGER)
        dataset = LOADER.open(inputs)
        num_steps = dataset.num_steps("train", global_batch_size=BATCH)
        next(_batches(dataset, 0))  # the order of the split is made once
        epochs = iter(range(1, 1_000_000))

        def arm(share: float) -> Callable[[], float]:
            def first_batches() -> float:
                at = int(share * num_steps)
                started = time.process_time()
                for _ in range(SEEKS):
                    batch = next(_batches(dataset, next(epochs), at))
                spent = time.process_time() - started
                assert len(batch.keys) == BATCH
                return spent

            return first_batches

        for _ in range(3):  # most samples have been read by then
            arm(0.5)()
        taken: dict[str, Taken] = in_turns(
            {"at 1 %": arm(0.01), "at 90 %": arm(0.9)}, steady="at 1 %"
        )
        dataset.close()
    late, early = taken["at 90 %"], taken["at 1 %"]
    name = f"first batch at 90 % / at 1 % of {num_steps} steps, seconds"
    return [row(name, late.median / SEEKS, early.median / SEEKS, goal=1.1, better="lower",
                value=late.median / early.median, note=interval(early, late))]  # fmt: skip


class Loading:
    """The same pictures, read in several ways."""

    def __init__(self, directory: Path, num_samples: int) -> None:
        import webdataset

        inputs = write_dataset(directory, num_samples)
        self.here = LOADER.open(inputs)
        self.there = replace(LOADER, workers=1).open(inputs)
        self.num = num_samples // BATCH * BATCH
        self._epochs = Counter({self.here: 0, self.there: 0})
        self._pictures = [
            self.here.parts(info.key)["jpg"] for info in self.here.samples("train")[: self.num]
        ]
        self._webdataset: Any = webdataset
        self._shards = sorted(map(str, (directory / "train").glob("*.tar")))
        self._sum = sum(int(simplejpeg.decode_jpeg(one).sum()) for one in self._pictures)

    def bare(self) -> float:
        started = time.process_time()
        for _ in range(PASSES):
            for data in self._pictures:
                pixels = simplejpeg.decode_jpeg(data)
        spent = time.process_time() - started
        assert pixels.shape == (SIDE, SIDE, 3)
        return spent

    def ours(self, dataset: OpenMultimodal) -> float:
        started = _at_rest(dataset)
        found = 0
        for _ in range(PASSES):
            # the epoch after the one before: a reader process has begun with it
            self._epochs[dataset] += 1
            for batch in _batches(dataset, self._epochs[dataset]):
                found += len(batch.keys)
        spent = _at_rest(dataset) - started
        assert found == PASSES * self.num
        return spent

    def webdataset(self) -> float:
        wds = self._webdataset
        pipeline = (
            wds.WebDataset(self._shards, shardshuffle=len(self._shards), seed=0)
            .shuffle(1000)
            .decode("rgb8")
            .to_tuple("jpg")
            .batched(BATCH, partial=False)
        )
        started = time.process_time()
        found = 0
        for _ in range(PASSES):
            for (pixels,) in pipeline:
                found += len(pixels)
                assert np.asarray(pixels).dtype == np.uint8
        spent = time.process_time() - started
        assert found == PASSES * self.num
        return spent

    def write_pictures(self, directory: Path) -> None:
        """Write the pictures as files, for those who have a format of their own."""
        directory.mkdir()
        for number, data in enumerate(self._pictures):
            (directory / f"{number:08d}.jpg").write_bytes(data)

    def check(self) -> None:
        """Assert that every pixel comes out as the bare loop has it."""
        for dataset in (self.here, self.there):
            total = sum(int(batch.arrays["image"].sum()) for batch in _batches(dataset, 0))
            assert total == self._sum, "other pixels"

    def close(self) -> None:
        self.check()
        self.here.close()
        self.there.close()


def _at_rest(dataset: OpenMultimodal) -> float:
    """Return seconds of the processor spent so far, once the reader process has nothing to do."""
    if dataset.reader_pid is None:
        return time.process_time()
    reader = psutil.Process(dataset.reader_pid)
    before = -1.0
    while (now := sum(reader.cpu_times()[:2])) != before:
        before = now
        time.sleep(_LOOK_SECONDS)
    return now + time.process_time()


def _batches(dataset: OpenMultimodal, epoch: int, first_step: int = 0) -> Any:
    return dataset.epoch(
        "train",
        seed=0,
        epoch=epoch,
        global_batch_size=BATCH,
        rank=0,
        num_ranks=1,
        first_step=first_step,
    )


def write_dataset(directory: Path, num_samples: int, *, times: int = 1) -> Inputs:
    """Write a dataset whose table names every sample so many times, and a tokenizer."""
    noise = np.random.default_rng(3).normal(0, 4, (2 * SIDE, 2 * SIDE, 3)).astype(np.int16)
    stored: list[StoredSample] = []
    files = []
    (directory / "train").mkdir(parents=True)
    for number, first in enumerate(range(0, num_samples, PER_SHARD)):
        shard = f"train/train-{number:06d}.tar"
        tar = TarWriter()
        stored += [
            _add(tar, shard, sample - first, sample, _picture(sample, noise))
            for sample in range(first, min(first + PER_SHARD, num_samples))
        ]
        data = b"".join(tar.finish())
        (directory / shard).write_bytes(data)
        files.append(FileRecord(shard, len(data), sha256_hex(data)))
    more = [
        replace(one, key=f"{one.key}-{again:03d}", index=one.index + again * PER_SHARD)
        for again in range(1, times)
        for one in stored
    ]
    table = to_parquet([*stored, *more])
    (directory / "manifest.parquet").write_bytes(table)
    files.append(FileRecord("manifest.parquet", len(table), sha256_hex(table)))
    tokenizer = directory / "tokenizer"
    tokenizer.mkdir()
    Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(
        str(tokenizer / "tokenizer.json")
    )
    shards = Artifact(str(directory), Manifest("shard", "f" * 64, {}, Counts(), tuple(files)))
    words = Artifact(str(tokenizer), Manifest("tokenizer", "e" * 64, {}, Counts(), ()))
    return Inputs({"shard": shards, "tokenizer": words}, {})


def _add(tar: TarWriter, shard: str, index: int, number: int, picture: bytes) -> StoredSample:
    key = f"s{number:08d}"
    document = json.dumps({"key": key, "licence": "cc-by-4.0"}).encode()
    parts = []
    for extension, data in (("jpg", picture), ("json", document)):
        member = tar.add(f"{key}.{extension}", data)
        parts.append(StoredPart(extension, member.offset, len(data), sha256_hex(data)))
    return StoredSample(key, "train", shard, index, tuple(parts), {"label": "owl"}, {})


def _picture(number: int, noise: np.ndarray) -> bytes:
    soft = np.random.default_rng(number).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    base = cv2.resize(soft, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    top, left = number % SIDE, number * 7 % SIDE
    pixels = base + noise[top : top + SIDE, left : left + SIDE]
    return bytes(
        simplejpeg.encode_jpeg(
            pixels.clip(0, 255).astype(np.uint8), quality=QUALITY, colorsubsampling="420"
        )
    )
