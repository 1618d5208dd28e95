"""Loaders of others, run in environments of their own: `python peer_readers.py NAME SCRATCH BATCH`.

SCRATCH/pictures has the JPEGs. They are written in the peer's own format, and then read shuffled: so
many passes for each line of JSON, whose answer is what that cost of the processor. Batches are the
same for all, and so is the decoder, which the line names. Chunks, caches and buffers are what the peer does when nobody says
otherwise, without workers, so that no time is lost between processes.
"""

import json
import os
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch.utils.data import DataLoader

CHUNK_BYTES = 64 << 20
PER_SHARD = 256
SHUFFLE_BUFFER = 1000


def pillow(data: bytes) -> Any:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


DECODERS = {"pillow": pillow, "simplejpeg": simplejpeg.decode_jpeg}
chosen = {"decoder": "pillow"}


def stacked(samples: Sequence[Any]) -> Any:
    """Decode a batch."""
    decode = DECODERS[chosen["decoder"]]
    return np.stack([decode(bytes(sample["jpg"])) for sample in samples])


def litdata(pictures: Sequence[bytes], folder: Path, batch: int) -> Iterable[Any]:
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.cache import Cache

    cache = Cache(str(folder), chunk_bytes=CHUNK_BYTES)
    for number, data in enumerate(pictures):
        cache[number] = {"jpg": data}
    cache.done()
    cache.merge()
    dataset = StreamingDataset(str(folder), shuffle=True, seed=0, drop_last=True)
    return StreamingDataLoader(
        dataset, batch_size=batch, num_workers=0, drop_last=True, collate_fn=stacked
    )


def mosaic(pictures: Sequence[bytes], folder: Path, batch: int) -> Iterable[Any]:
    # torchvision of PyPI is built for GPUs; without one its import asks for these, which nobody uses
    declared = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from streaming import MDSWriter, StreamingDataset

    with MDSWriter(out=str(folder), columns={"jpg": "bytes"}, size_limit=CHUNK_BYTES) as writer:
        for data in pictures:
            writer.write({"jpg": data})
    dataset = StreamingDataset(local=str(folder), shuffle=True, shuffle_seed=0, batch_size=batch)
    loader = DataLoader(dataset, batch_size=batch, drop_last=True, collate_fn=stacked)
    loader.kept = declared
    return loader


def energon(pictures: Sequence[bytes], folder: Path, batch: int) -> Iterable[Any]:
    from megatron.energon import (
        Cooker,
        CrudeWebdataset,
        DefaultTaskEncoder,
        WorkerConfig,
        get_loader,
        get_train_dataset,
    )
    from megatron.energon.flavors import BaseWebdatasetFactory
    from megatron.energon.task_encoder.base import stateless

    folder.mkdir(parents=True)
    names = []
    for first in range(0, len(pictures), PER_SHARD):
        names.append(f"{first:06d}.tar")
        with tarfile.open(folder / names[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, data in enumerate(pictures[first : first + PER_SHARD], first):
                member = tarfile.TarInfo(f"{number:08d}.jpg")
                member.size = len(data)
                tar.addfile(member, BytesIO(data))
    BaseWebdatasetFactory.prepare_dataset(
        folder, names, split_parts_ratio=[("train", 1.0)], workers=1
    )
    (folder / ".nv-meta" / "dataset.yaml").write_text(
        f"__module__: {CrudeWebdataset.__module__}\n__class__: {CrudeWebdataset.__qualname__}\n"
    )

    @stateless
    def as_it_is(sample: Any) -> Any:
        return sample

    class Encoder(DefaultTaskEncoder):  # type: ignore[misc]
        decoder = None
        cookers = (Cooker(as_it_is),)

        @stateless
        def batch(self, samples: Any) -> Any:
            return stacked(samples)

        @stateless
        def encode_batch(self, batch: Any) -> Any:
            return batch

    dataset = get_train_dataset(
        folder,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=batch,
        shuffle_buffer_size=SHUFFLE_BUFFER,
        max_samples_per_sequence=100,
        task_encoder=Encoder(),
        virtual_epoch_length=len(pictures) // batch,
    )
    return get_loader(dataset)


def main() -> None:
    """Answer until nobody asks."""
    name, scratch, batch = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    files = sorted((scratch / "pictures").iterdir())
    pictures = [file.read_bytes() for file in files]
    makers = {"litdata": litdata, "mosaic": mosaic, "energon": energon}
    batches = makers[name](pictures, scratch / name, batch)
    for line in sys.stdin:
        question = json.loads(line)
        chosen["decoder"] = question["decoder"]
        print(json.dumps(_read(batches, question["passes"])), flush=True)
    # a library's threads and its shared memory are nobody's any more
    sys.stdout.flush()
    os._exit(0)


def _read(batches: Iterable[Any], num_passes: int) -> dict[str, float]:
    started, num, total = time.process_time(), 0, 0
    for _ in range(num_passes):
        for pixels in _pixels(batches):
            num += len(pixels)
            total += int(pixels[0, 0, 0, 0])
    return {"seconds": time.process_time() - started, "num": num}


def _pixels(batches: Iterable[Any]) -> Iterator[Any]:
    for pixels in batches:
        assert np.asarray(pixels).dtype == np.uint8
        yield pixels


if __name__ == "__main__":
    main()
