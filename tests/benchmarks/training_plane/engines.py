"""What an engine costs beside bare loops: seconds of a step, and bytes of tensors per rank.

Every loop has a process of its own, pinned to one core, and the same batches in memory; the losses
of all loops are compared before a time counts. Bytes are those of the unique storages that are alive
between two steps, against the theory of ZeRO; what float32 weights need twice at stages 1 and 2 is
declared, and so is the bucket that gradients are exchanged through.
"""

import gc
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from asked import OURS, asked_of_us
from figures import Row, not_measured, row
from turns import Arm, in_turns, interval

from mmcore.models.config import (
    DataShape,
    ImageEncoderConfig,
    ModelConfig,
    TextEncoderConfig,
)
from mmcore.models.losses import training_loss
from mmcore.models.multimodal import MultimodalModel
from mmcore.train.config import TrainConfig
from mmcore.train.deepspeed_config import deepspeed_config
from mmcore.train.engines import World, build_engine
from mmcore.train.engines.optimizers import build_optimizer
from mmcore.train.memory import forecast_memory
from mmcore.train.turns import accumulate

BATCH = 48
STEPS = 4
"""Of one round of one loop."""
GOALS = {0: 1.05, 1: 1.15, 2: 1.15, 3: 1.30}
LOSS_TOLERANCE = 1e-5
"""Relative, over all steps: shortened gradients are rounded otherwise under ZeRO."""
SMALL_BUCKET = 1_000
_MODEL = ModelConfig(
    audio=None,
    dropout=0.0,
    image=ImageEncoderConfig(
        architecture="vit",
        options={
            "hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3,
            "intermediate_size": 768, "image_size": 64, "patch_size": 16,
        },
    ),
    text=TextEncoderConfig(
        options={
            "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "intermediate_size": 256, "max_position_embeddings": 32,
            "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        },
    ),
)  # fmt: skip
_SHAPE = DataShape(labels=tuple("abcdefgh"), vocab_size=1000, num_mels=8)


def figures() -> list[Row]:
    """Return the rows of step time and of bytes."""
    return [*step_figures(), *byte_figures()]


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

        taken = in_turns({name: arm(name) for name in names}, rounds=8)
    for name, found in losses.items():
        apart = max(abs(x - y) / abs(y) for x, y in zip(found, losses["bare"], strict=True))
        assert apart <= LOSS_TOLERANCE, f"{name} trains otherwise: {apart:.2e}"
        assert name != "ours 0" or not apart, f"without ZeRO the loss is not the same: {apart:.2e}"
    rows = []
    for stage, goal in GOALS.items():
        ours, bare, raw = taken[f"ours {stage}"], taken["bare"], taken[f"deepspeed {stage}"]
        for what, other, limit in (
            ("bare torch with fused AdamW", bare, goal),
            ("a bare DeepSpeed loop", raw, 1.005),
        ):
            rows.append(
                row(
                    f"ms of a step, ZeRO-{stage} / {what}",
                    1e3 * ours.median / STEPS,
                    1e3 * other.median / STEPS,
                    goal=limit,
                    better="lower",
                    value=ours.median / other.median,
                    note=f"1/ratio {interval(ours, other)}",
                )
            )
    return rows


def byte_figures() -> list[Row]:
    """Return the bytes of tensors per rank beside the theory of ZeRO, for 1, 2 and 4 ranks."""
    rows = []
    for num_ranks in (1, 2, 4):
        found = _gang_bytes(num_ranks)
        for stage in range(4):
            name = f"bytes of tensors, ZeRO-{stage}, {num_ranks} ranks / theory"
            if found is None:
                rows.append(not_measured(name, "a rank ended early", goal=1.03, better="lower"))
                continue
            config = TrainConfig(zero_stage=stage, bucket_elements=SMALL_BUCKET)  # type: ignore[arg-type]
            theory = forecast_memory(
                config, num_trained=found["num_weights"], num_ranks=num_ranks
            ).total
            most = max(found["bytes"][str(stage)])
            rows.append(row(name, most, theory, goal=1.03, better="lower", value=most / theory))
    return rows


def _gang_bytes(num_ranks: int) -> dict[str, Any] | None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "training_plane.engines", "bytes"],
            env={**os.environ, "PYTHONPATH": OURS, **_environment(rank, num_ranks, port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    said = [process.communicate(timeout=600)[0] for process in processes]
    if any(process.returncode for process in processes):
        return None
    answers = [json.loads(text.splitlines()[-1]) for text in said]
    stages = {stage: [one["bytes"][stage] for one in answers] for stage in answers[0]["bytes"]}
    return {"num_weights": answers[0]["num_weights"], "bytes": stages}


def _environment(rank: int, num_ranks: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(num_ranks),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def main() -> None:
    """Be one loop that steps when asked, or one rank that says what it holds."""
    torch.set_num_threads(1)
    if sys.argv[1] == "bytes":
        print(json.dumps(_bytes_by_stage()), flush=True)
        return
    stage = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= _environment(0, 1, free.getsockname()[1])
    step = {"bare": _bare, "ours": _ours, "deepspeed": _deepspeed}[sys.argv[1]](stage)
    batches = [_batch(seed, BATCH) for seed in range(4)]
    for number, _ in enumerate(sys.stdin):
        started = time.perf_counter()
        losses = [step(batches[(number + index) % 4]) for index in range(STEPS)]
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "losses": losses}), flush=True)


Step = Callable[[dict[str, torch.Tensor]], float]


def _model() -> MultimodalModel:
    torch.manual_seed(0)
    return MultimodalModel(_MODEL, _SHAPE)


def _batch(seed: int, size: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (size, 64, 64, 3), generator=draw, dtype=torch.uint8),
        "text_ids": torch.randint(2, 1000, (size, 16), generator=draw),
        "text_mask": torch.ones(size, 16, dtype=torch.bool),
        "has_image": torch.ones(size, dtype=torch.bool),
        "has_text": torch.ones(size, dtype=torch.bool),
        "label": torch.randint(0, 8, (size,), generator=draw),
        "group": torch.arange(size),
    }


def _config(stage: int) -> TrainConfig:
    return TrainConfig(global_batch_size=BATCH, zero_stage=stage)  # type: ignore[arg-type]


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
    world, config = World(0, 1, 0), _config(stage)
    engine = build_engine(_model(), config, world)

    def step(batch: dict[str, torch.Tensor]) -> float:
        loss = accumulate(engine, _MODEL, config, world, batch)["loss"]
        engine.step(config.learning_rate)
        return loss

    return step


def _deepspeed(stage: int) -> Step:
    """Return the loop of DeepSpeed's own examples, with the same settings and optimizer."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

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


def _bytes_by_stage() -> dict[str, Any]:
    world = World.from_environment()
    torch.distributed.init_process_group("gloo")
    found, num_weights = {}, 0
    for stage in range(4):
        size = 4 * world.num_ranks
        config = TrainConfig(
            global_batch_size=size,
            zero_stage=stage,  # type: ignore[arg-type]
            bucket_elements=SMALL_BUCKET,
        )
        before = _alive()
        model = _model()
        num_weights = sum(one.numel() for one in model.parameters())
        engine = build_engine(model, config, world)
        batch = {name: tensor[world.rank * 4 :][:4] for name, tensor in _batch(0, size).items()}
        for turn in range(3):
            accumulate(engine, _MODEL, config, world, batch)
            if turn == 2:  # gradients are there, and activations are gone
                found[str(stage)] = _alive() - before
            engine.step(config.learning_rate)
        engine.close()
        del engine, model
        gc.collect()
    torch.distributed.destroy_process_group()
    return {"num_weights": num_weights, "bytes": found}


def _alive() -> int:
    """Return the bytes of all storages that tensors of this process lie in, each once."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        if isinstance(one, torch.Tensor) and one.device.type != "meta":
            for tensor in (one, one.grad if one.is_leaf else None):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


if __name__ == "__main__":
    main()
