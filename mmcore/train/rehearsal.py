"""A few steps of a training before it starts: how long one takes, and what it keeps in memory."""

import gc
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mmcore.core.loader import Batch, OpenLoader
from mmcore.models.config import DataShape
from mmcore.models.multimodal import MultimodalModel
from mmcore.train.config import TrainConfig
from mmcore.train.engines import World, build_engine
from mmcore.train.meter import tokens_of
from mmcore.train.schedule import learning_rate
from mmcore.train.turns import accumulate
from mmcore.train.validation import to_tensors

_TRAIN_SPLIT = "train"


def rehearse(config: Mapping[str, Any]) -> None:
    """Take a few steps on this rank together with the others; rank 0 reports what it measured.

    The report `counted` comes before anything that may find too little memory.
    """
    world = World.from_environment()
    train: TrainConfig = config["train"]
    torch.set_num_threads(train.num_threads)
    torch.manual_seed(train.seed)
    dataset = None if config["inputs"] is None else config["loader"].open(config["inputs"])
    shape = _shape(dataset, config["assumed"])
    model = MultimodalModel(config["model"], shape)
    parameters = list(model.parameters())
    counted = {
        "num_trained": sum(parameter.numel() for parameter in parameters),
        "num_frozen": 0,
        "buffer_bytes": sum(b.numel() * b.element_size() for b in model.buffers()),
        "is_real": dataset is not None,
        "num_labels": len(shape.labels),
        "device": world.device.type,
        "device_bytes": torch.cuda.mem_get_info(world.device)[0]
        if world.device.type == "cuda"
        else 0,
    }
    config["report"]({"kind": "counted", **counted})
    engine = build_engine(model, train, world)
    parameters = list(model.parameters())  # some may be frozen now, and others added
    for name, is_trained in (("num_trained", True), ("num_frozen", False)):
        counted[name] = sum(_size(p) for p in parameters if p.requires_grad == is_trained)
    batches = _batches(dataset, train, world, config["assumed"])
    seconds, waits, kept, held = [], [], 0, 0
    num_steps: int = config["num_steps"]
    try:
        engine.evaluating(is_evaluating=False)
        # the first step also makes the optimizer's state, and the last one is left half done
        for step in range(num_steps + 2):
            asked = time.perf_counter()
            batch = next(batches)
            started = time.perf_counter()
            with _Kept(parameters, is_on=step == 0) as found:
                tensors = to_tensors(batch, world.device)
                accumulate(engine, config["model"], train, world, tensors)
            if step == 0:
                kept = found.num_bytes
            if step > num_steps:
                held = tensor_bytes() if config["counts_tensors"] else 0
                break
            engine.step(learning_rate(train, step, num_steps=num_steps + 2))
            if step > 0:
                seconds.append(time.perf_counter() - started)
                waits.append(started - asked)
    finally:
        engine.close()
    measured = {
        "activation_bytes": kept,
        "tensor_bytes": held,
        "step_seconds": statistics.median(seconds),
        "wait_seconds": statistics.median(waits),
        "num_tokens": tokens_of(batch) * world.num_ranks,
    }
    config["report"]({"kind": "rehearsed", **counted, **measured})


def tensor_bytes() -> int:
    """Return the bytes of all tensors of this process, each storage once."""
    gc.collect()
    found = {}
    for one in gc.get_objects():
        # not isinstance: proxies of libraries would be loaded by the question
        if issubclass(type(one), Tensor):
            for tensor in (one, one.grad if one.is_leaf else None):
                if tensor is not None and tensor.device.type != "meta":
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def _size(parameter: nn.Parameter) -> int:
    # what ZeRO-3 has shared out is empty here, and knows how large it was
    return int(getattr(parameter, "ds_numel", parameter.numel()))


class _Kept:
    """Counts what a forward pass keeps for the backward one; of several, the most."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, is_on: bool) -> None:
        self.num_bytes = 0
        self._weights = {one.untyped_storage().data_ptr() for one in parameters}
        self._seen: dict[int, int] = {}
        self._is_backward = False
        self._hooks = saved_tensors_hooks(self._pack, self._unpack) if is_on else None

    def __enter__(self) -> "_Kept":
        if self._hooks is not None:
            self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._hooks is not None:
            self._hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> Tensor:
        if self._is_backward:
            self._seen.clear()
            self._is_backward = False
        storage = tensor.untyped_storage()
        is_weight = isinstance(tensor if tensor._base is None else tensor._base, nn.Parameter)
        if not is_weight and storage.data_ptr() not in self._weights:
            self._seen[storage.data_ptr()] = storage.nbytes()
            self.num_bytes = max(self.num_bytes, sum(self._seen.values()))
        return tensor

    def _unpack(self, tensor: Tensor) -> Tensor:
        self._is_backward = True
        return tensor


def _shape(dataset: OpenLoader | None, assumed: Mapping[str, int]) -> DataShape:
    if dataset is None:
        labels = tuple(f"label {number}" for number in range(assumed["num_labels"]))
        return DataShape(
            labels=labels, vocab_size=assumed["vocab_size"], num_mels=assumed["num_mels"]
        )
    return DataShape(
        labels=tuple(dataset.labels),
        vocab_size=dataset.vocab_size,
        num_mels=assumed["num_mels"],
    )


def _batches(
    dataset: OpenLoader | None, train: TrainConfig, world: World, assumed: Mapping[str, int]
) -> Iterator[Batch]:
    """Yield this rank's batches without end."""
    if dataset is None:
        yield from repeat(_made_up(train.global_batch_size // world.num_ranks, assumed))
        return
    for epoch in count():
        yield from dataset.epoch(
            _TRAIN_SPLIT,
            seed=train.seed,
            epoch=epoch,
            global_batch_size=train.global_batch_size,
            rank=world.rank,
            num_ranks=world.num_ranks,
        )


def _made_up(size: int, assumed: Mapping[str, int]) -> Batch:
    """Return a batch of the largest samples that the loader gives."""
    draw = np.random.Generator(np.random.PCG64(0))
    side, length, frames = (assumed[name] for name in ("image_side", "max_tokens", "num_frames"))
    arrays = {
        "image": draw.integers(0, 256, (size, side, side, 3), np.uint8),
        "text_ids": draw.integers(0, assumed["vocab_size"], (size, length)),
        "text_mask": np.ones((size, length), bool),
        "audio_mel": draw.standard_normal((size, frames, assumed["num_mels"]), np.float32),
        "audio_mask": np.ones((size, frames), bool),
        **{f"has_{name}": np.ones(size, bool) for name in ("image", "text", "audio")},
        "label": draw.integers(0, assumed["num_labels"], size),
        "group": np.arange(size),
    }
    return Batch([str(number) for number in range(size)], arrays)
