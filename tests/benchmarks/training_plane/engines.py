"""What an engine costs beside bare loops: seconds of a step, and bytes of tensors per rank.

Every loop has a process of its own, pinned to one core, and the same batches in memory; the losses
of our loops and the bare one are compared before a time counts. Bytes are those of the storages that
are alive once the gradients are there, each once, against the theory of ZeRO for float32 weights: 16P;
8P + 8P/N; 4P + 12P/N; 16P/N. Declared besides: the copy of the float32 weights that DeepSpeed makes
even of float32 ones (4P/N from stage 1 on), and at stage 3 the bucket that gradients go through. The
forecast counts what a rank holds then: at stage 1 it has let go of the gradients of others, too.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from asked import ONE_THREAD, OURS, asked_of_us
from figures import Row, not_measured, row
from turns import Arm, in_turns, interval, shared_memory

from mmcore.models.config import DataShape, ImageEncoderConfig, ModelConfig, TextEncoderConfig
from mmcore.models.losses import training_loss
from mmcore.models.multimodal import MultimodalModel
from mmcore.train.config import TrainConfig
from mmcore.train.deepspeed_config import deepspeed_config
from mmcore.train.engines import Engine, World, build_engine
from mmcore.train.engines.optimizers import build_optimizer
from mmcore.train.memory import forecast_memory
from mmcore.train.rehearsal import tensor_bytes
from mmcore.train.turns import accumulate
from mmcore.train.validation import to_tensors

BATCH = 64
STEPS = 3
"""Of one round of one loop."""
MIN_SECONDS = 0.25
"""Of a bare step: overhead that does not grow with it would count for more in a shorter one."""
GOALS = {0: 1.05, 1: 1.15, 2: 1.15, 3: 1.30}
LOSS_GOAL = 1e-6
BUCKET = 500_000
STALL_STEPS = 8
SIDE = 64
WIDE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
"""Of the model whose bytes are counted: small tensors, which stage 3 leaves whole, are few."""
_TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
_TEXT = TextEncoderConfig(
    options={
        "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 256, "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    },
)  # fmt: skip


def _pictures(sizes: Mapping[str, int], num_layers: int) -> ImageEncoderConfig:
    options = {**sizes, "num_hidden_layers": num_layers, "image_size": SIDE, "patch_size": 16}
    return ImageEncoderConfig(architecture="vit", options=options)


_MODEL = ModelConfig(audio=None, dropout=0.0, image=_pictures(_TINY, 12), text=_TEXT)
_SHAPE = DataShape(labels=tuple("abcdefgh"), vocab_size=1000, num_mels=8)


def figures(num_layers: int) -> list[Row]:
    """Return the rows of step time, of waiting for data, and of bytes of a model of so many layers."""
    return [*step_figures(), *stall_figures(), *byte_figures(num_layers)]


def step_figures() -> list[Row]:
    """Return our step at every stage beside bare torch, and beside a bare DeepSpeed loop."""
    core = frozenset(sorted(os.sched_getaffinity(0))[:1])
    names = ["bare", *(f"{kind} {stage}" for stage in range(4) for kind in ("ours", "deepspeed"))]
    losses: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:

        def arm(name: str) -> Arm:
            process = asked_of_us("training_plane.engines", *name.split(), cores=core)
            stack.callback(process.close)

            def once() -> float:
                answer = process.ask(do="steps")
                losses[name] += answer["losses"]
                return float(answer["seconds"])

            return once

        taken = in_turns({name: arm(name) for name in names})
    bare = taken["bare"]
    if bare.median / STEPS < MIN_SECONDS:
        short = f"a bare step takes {1e3 * bare.median / STEPS:.0f} ms, less than 250"
        return [not_measured("ms of a step", short, better="lower")]
    rows = []
    for stage, goal in GOALS.items():
        ours, raw = taken[f"ours {stage}"], taken[f"deepspeed {stage}"]
        for what, other, limit in (
            ("bare torch, fused AdamW", bare, goal),
            ("a bare DeepSpeed loop", raw, 1.005),
        ):
            rows.append(
                row(f"ms of a step, ZeRO-{stage} / {what}",
                    1e3 * ours.median / STEPS, 1e3 * other.median / STEPS, goal=limit,
                    better="lower", value=ours.median / other.median,
                    note=f"1/ratio {interval(ours, other)}")
            )  # fmt: skip
        pairs = list(zip(losses[f"ours {stage}"], losses["bare"], strict=True))
        apart = max(abs(x - y) / abs(y) for x, y in pairs)
        assert stage or not apart, f"without ZeRO the loss is not that of bare torch: {apart:.1e}"
        name = f"relative difference of the loss in {len(pairs)} steps, ZeRO-{stage} / bare torch"
        rows.append(row(name, apart, 0.0, goal=LOSS_GOAL, better="lower", value=apart))
    return rows


def stall_figures() -> list[Row]:
    """Return a step with batches from shards beside one with batches that are in memory."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as directory, ExitStack() as stack:
        process = asked_of_us("training_plane.engines", "stall", directory)
        stack.callback(process.close)

        def arm(name: str) -> Arm:
            return lambda: float(process.ask(do=name)["seconds"])

        taken = in_turns({"bare": arm("memory"), "ours": arm("shards")})
    ours, bare = taken["ours"], taken["bare"]
    return [
        row("ms of a step, batches from shards / from memory",
            1e3 * ours.median / STALL_STEPS, 1e3 * bare.median / STALL_STEPS, goal=1.01,
            better="lower", value=ours.median / bare.median,
            note=f"1/ratio {interval(ours, bare)}")
    ]  # fmt: skip


def byte_figures(num_layers: int) -> list[Row]:
    """Return the bytes of tensors per rank beside theory and forecast, for 1, 2 and 4 ranks."""
    rows = []
    for num_ranks in (1, 2, 4):
        for stage, found in enumerate(_bytes_of_ranks(num_ranks, num_layers)):
            num, most = found["num_weights"], found["bytes"]
            bucket = 4 * BUCKET if stage == 3 and num_ranks > 1 else 0
            theory = bucket + num * (
                16, 8 + 12 / num_ranks, 4 + 16 / num_ranks, 20 / num_ranks
            )[stage]  # fmt: skip
            config = _config(stage, bucket_elements=BUCKET)
            told = forecast_memory(config, num_trained=num, num_ranks=num_ranks).held
            of = f"ZeRO-{stage}, {num_ranks} ranks"
            rows += [
                row(f"bytes of tensors / theory, {of}", most, theory, goal=1.03, better="lower",
                    value=most / theory),
                row(f"bytes of tensors / forecast, the larger to the smaller, {of}", most, told,
                    goal=1.03, better="lower", value=max(most / told, told / most)),
            ]  # fmt: skip
    return rows


def _bytes_of_ranks(num_ranks: int, num_layers: int) -> list[dict[str, int]]:
    """Return for every stage how many weights there are, and the bytes of the rank with the most."""
    environments = [_environment(rank, num_ranks, _free_port()) for rank in range(num_ranks)]
    for one in environments:
        one["MASTER_PORT"] = environments[0]["MASTER_PORT"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "training_plane.engines", "bytes", str(num_layers)],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": OURS, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]
    try:
        said = [process.communicate(timeout=600)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "a rank ended early"
    answers = [json.loads(text.splitlines()[-1]) for text in said]
    return [max(stage, key=lambda one: one["bytes"]) for stage in zip(*answers, strict=True)]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _environment(rank: int, num_ranks: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def main() -> None:
    """Be one loop that steps when asked, or one rank that says what it holds."""
    torch.set_num_threads(1)
    kind, argument = sys.argv[1], (sys.argv[2] if len(sys.argv) > 2 else "0")
    if kind == "bytes":
        print("\n" + json.dumps(_bytes_by_stage(int(argument))), flush=True)
        return
    os.environ |= _environment(0, 1, _free_port())
    if kind == "stall":
        _be_fed(Path(argument))
        return
    step = {"bare": _bare, "ours": _ours, "deepspeed": _deepspeed}[kind](int(argument))
    batches = cycle([_batch(seed, BATCH) for seed in range(4)])
    for _ in sys.stdin:
        started = time.perf_counter()
        losses = [step(batch) for batch in islice(batches, STEPS)]
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "losses": losses}), flush=True)


Step = Callable[[dict[str, torch.Tensor]], float]


def _model(config: ModelConfig = _MODEL) -> MultimodalModel:
    torch.manual_seed(0)
    return MultimodalModel(config, _SHAPE)


def _batch(seed: int, size: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (size, SIDE, SIDE, 3), generator=draw, dtype=torch.uint8),
        "text_ids": torch.randint(2, 1000, (size, 16), generator=draw),
        "text_mask": torch.ones(size, 16, dtype=torch.bool),
        "has_image": torch.ones(size, dtype=torch.bool),
        "has_text": torch.ones(size, dtype=torch.bool),
        "label": torch.randint(0, 8, (size,), generator=draw),
        "group": torch.arange(size),
    }


def _config(stage: int, **more: Any) -> TrainConfig:
    return TrainConfig(**{"global_batch_size": BATCH, "zero_stage": stage, **more})


def _bare(stage: int) -> Step:
    model, config = _model(), _config(stage)
    optimizer = build_optimizer(model, config)
    parameters = list(model.parameters())

    def step(batch: dict[str, torch.Tensor]) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = training_loss(model(batch), batch, _MODEL.loss)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        return loss.item()

    return step


def _ours(stage: int) -> Step:
    return _step_of(build_engine(_model(), _config(stage), World(0, 1, 0)), _config(stage), _MODEL)


def _step_of(engine: Engine, config: TrainConfig, model: ModelConfig) -> Step:
    def step(batch: dict[str, torch.Tensor]) -> float:
        loss = accumulate(engine, model, config, World(0, 1, 0), batch)["loss"]
        engine.step(config.learning_rate)
        return loss

    return step


def _deepspeed(stage: int) -> Step:
    """Return the loop of DeepSpeed's own examples, with the same settings and optimizer."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    # it would compile an all-reduce for inference, for a minute
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    model, config = _model(), _config(stage)
    num_elements = sum(one.numel() for one in model.parameters())
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=build_optimizer(model, config),
        config=deepspeed_config(config, num_ranks=1, num_elements=num_elements),
    )

    def step(batch: dict[str, torch.Tensor]) -> float:
        loss = training_loss(engine(batch), batch, _MODEL.loss)["loss"]
        engine.backward(loss)
        engine.step()
        return loss.item()

    return step


def _be_fed(directory: Path) -> None:
    """Step with batches from a reader process, or with eight that were kept, as asked."""
    from training_plane.loading import LOADER, write_dataset

    loader = replace(LOADER, workers=1, image_side=SIDE)
    dataset = loader.open(write_dataset(directory, 1024))
    model = replace(_MODEL, text=None)
    config = _config(1)
    engine = build_engine(_model(model), config, World(0, 1, 0))
    step = _step_of(engine, config, model)
    device = torch.device("cpu")

    def stream() -> Any:
        for epoch in range(1_000_000):
            yield from dataset.epoch(
                "train", seed=0, epoch=epoch, global_batch_size=BATCH, rank=0, num_ranks=1
            )

    shards = stream()
    kept = [to_tensors(next(shards), device) for _ in range(8)]
    kept = [{name: tensor.clone() for name, tensor in one.items()} for one in kept]
    memory = cycle(kept)
    for line in sys.stdin:
        is_real = json.loads(line)["do"] == "shards"
        started = time.perf_counter()
        for _ in range(STALL_STEPS):
            step(to_tensors(next(shards), device) if is_real else next(memory))
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)
    dataset.close()


def _bytes_by_stage(num_layers: int) -> list[dict[str, int]]:
    world = World.from_environment()
    torch.distributed.init_process_group("gloo")
    model_config = replace(_MODEL, image=_pictures(WIDE, num_layers))
    size = 2 * world.num_ranks
    rows = slice(2 * world.rank, 2 * world.rank + 2)
    batch = {name: tensor[rows] for name, tensor in _batch(0, size).items()}
    found = []
    for stage in range(4):
        config = _config(stage, global_batch_size=size, bucket_elements=BUCKET)
        before = tensor_bytes()
        model = _model(model_config)
        num_weights = sum(one.numel() for one in model.parameters())
        engine = build_engine(model, config, world)
        for turn in range(3):
            accumulate(engine, model_config, config, world, batch)
            if turn == 2:  # gradients are there, and activations are gone
                found.append({"num_weights": num_weights, "bytes": tensor_bytes() - before})
            engine.step(config.learning_rate)
        engine.close()
        del engine, model
    torch.distributed.destroy_process_group()
    return found


if __name__ == "__main__":
    main()
