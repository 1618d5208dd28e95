"""`mm forecast`: memory and time of a training, before it starts."""

from collections.abc import Iterator
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import (
    ALL_CORES,
    DEFAULT_ROOT,
    AsJson,
    Executor,
    Overrides,
    Recipe,
    Root,
    Workers,
    print_json,
    say,
)
from mmcore.errors import ConfigError
from mmcore.recipe.execute import absolute_root
from mmcore.recipe.forecast import Case, Forecast, Rehearsed
from mmcore.recipe.forecast import forecast as work_out

app = new_app()


@app.command()
def forecast(
    recipe: Recipe,
    root: Root = DEFAULT_ROOT,
    ranks: Annotated[str, typer.Option(help="Numbers of ranks to work out")] = "1,2,4",
    steps: Annotated[int, typer.Option(min=1, help="Steps to take for the time")] = 3,
    executor: Executor = "local",
    workers: Workers = ALL_CORES,
    overrides: Overrides = [],  # noqa: B006 - typer copies it
    as_json: AsJson = False,
) -> int:
    """Say what each way to share a training out needs, and how long it would take.

    A few steps are taken with the recipe's engine and ranks, on batches of the dataset if it is
    there, and on made-up ones of the largest size if not; nothing is written. Bytes per rank are
    those of ZeRO's theory, with DeepSpeed's float32 copy; activations are measured. `checkpt` is
    the copy that checkpoints are written from, with the host. `fits` is said of this machine with
    all ranks on it, that copy included. Example: mm forecast x.yaml --ranks 1,2,4
    """
    from mmcore.executors import make_executor

    found = work_out(
        recipe,
        ranks=_numbers(ranks),
        root=absolute_root(root),
        executor=make_executor(executor, num_workers=workers),
        num_steps=steps,
        overrides=overrides,
    )
    if as_json:
        print_json("forecast", found.to_json())
        return 0
    print("\n".join(_table(found)))
    if found.rehearsed is not None:
        print("\n".join(_pace(found.rehearsed)))
    else:
        say(f"no step could be taken: {found.why_not}")
    for note in found.notes:
        say(note)
    return 0


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ConfigError(f"--ranks {text!r}: use numbers from 1 on with commas, such as 1,2,4.")
    return numbers


def _table(found: Forecast) -> Iterator[str]:
    """Yield a line for each way to share the training out."""
    frozen = f" and {found.num_frozen:,} frozen" if found.num_frozen else ""
    yield f"{found.num_trained:,} weights{frozen}, {found.precision}, {found.optimizer}"
    yield f"{_size(found.available_bytes)} are free here\n"
    names = (
        "weights",
        "grads",
        "optimizer",
        "bucket",
        "activ.",
        "total",
        "on device",
        "checkpoint",
    )
    titles = "".join(f"{name:>11}" for name in names)
    yield f"ranks  ZeRO  {'offload':<18}{titles}  fits"
    for one in found.cases:
        values = (one.weights, one.gradients, one.optimizer, one.bucket, one.activations)
        sizes = "".join(
            f"{_size(v):>11}" for v in (*values, one.total, one.on_device, one.snapshot)
        )
        yield f"{one.num_ranks:>5}  {one.zero_stage:>4}  {one.offload:<18}{sizes}  {_fits(one)}"


def _fits(one: Case) -> str:
    if one.fits is None:
        return "batch not divisible"
    return "yes" if one.fits else "no"


def _pace(found: Rehearsed) -> Iterator[str]:
    ranks = "1 rank" if found.num_ranks == 1 else f"{found.num_ranks} ranks"
    yield (
        f"\nmeasured on {ranks}: {found.step_seconds * 1000:.0f} ms a step and "
        f"{found.wait_seconds * 1000:.0f} ms until its batch is there; "
        f"{found.samples_per_second:.0f} samples/s, {found.tokens_per_second:.0f} tokens/s"
    )
    if found.num_steps:
        yield f"the training: {found.num_steps} steps, about {_duration(found.training_seconds)}"


def _size(num_bytes: int) -> str:
    value, unit = float(num_bytes), 0
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    while value >= 1024 and unit < len(units) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {units[unit]}" if unit else f"{num_bytes} B"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
