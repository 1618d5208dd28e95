import numpy as np
import pytest
import torch
from torch import Tensor

from mmcore.core.loader import Batch
from mmcore.train.engines import World
from mmcore.train.meter import Meter, peak_flops, peak_of, resident_bytes, scalars_of

BATCH = Batch(["a", "b"], {"text_mask": np.array([[True, True, False], [True, False, False]])})


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def a_meter(clock: Clock, *, num_ranks: int = 2, peak: float | None = None) -> Meter:
    world = World(0, num_ranks, 0)
    return Meter(world, global_batch_size=4, peak_flops=peak, clock=clock)


def run_steps(meter: Meter, clock: Clock, *, num: int, wait: float, work: float) -> None:
    def batches():  # type: ignore[no-untyped-def]
        for _ in range(num):
            clock.now += wait
            yield BATCH

    for batch in meter.waiting(batches()):
        with meter.step(batch):
            clock.now += work


def two_ranks(own: Tensor) -> Tensor:
    other = own.clone()
    other[0, 0] += 1.5  # waited longer
    other[0, 2] += 4096
    return torch.cat([own, other])


def test_the_time_until_a_batch_is_there_is_the_data_stall() -> None:
    clock = Clock()
    meter = a_meter(clock)
    run_steps(meter, clock, num=4, wait=0.25, work=0.75)
    window = meter.window()
    assert window is not None
    assert window["samples_per_second"] == 4.0
    assert window["tokens_per_second"] == 6.0  # three a step, and as many on the other rank
    assert window["data_stall"] == 0.25
    assert window["step_seconds"] == 1.0
    assert "mfu" not in window
    assert meter.tell("epoch 1/2") == "epoch 1/2, 4 samples/s, 25% waiting for data"


def test_a_window_is_a_second_or_more_and_each_begins_anew() -> None:
    clock = Clock()
    meter = a_meter(clock)
    run_steps(meter, clock, num=1, wait=0.0, work=0.5)
    assert meter.window() is None
    assert meter.tell("at the start") == "at the start"
    run_steps(meter, clock, num=1, wait=0.0, work=1.5)
    assert meter.window() is not None
    assert meter.window() is None
    run_steps(meter, clock, num=2, wait=0.0, work=2.0)
    second = meter.window()
    assert second is not None
    assert second["step_seconds"] == 2.0


def test_an_epoch_is_told_over_all_ranks_by_the_one_that_waited_longest() -> None:
    clock = Clock()
    meter = a_meter(clock)
    run_steps(meter, clock, num=7, wait=9.0, work=9.0)
    meter.start_epoch()
    run_steps(meter, clock, num=10, wait=0.25, work=0.75)
    epoch = meter.epoch(two_ranks)
    assert epoch["samples_per_second"] == 4.0
    assert epoch["tokens_per_second"] == 6.0
    assert epoch["wait_seconds"] == 4.0
    assert epoch["data_stall"] == 0.4
    first, second = epoch["memory_bytes"]
    assert second == first + 4096
    assert scalars_of(epoch)["memory_bytes"] == second


def test_what_a_step_computes_against_what_a_gpu_could_is_its_mfu() -> None:
    clock = Clock()
    meter = a_meter(clock, peak=2 * 8 * 16 * 32 * 4)
    left, right = torch.ones(8, 16), torch.ones(16, 32)
    for _ in range(3):
        with meter.step(BATCH):
            left @ right
            clock.now += 1.0
    window = meter.window()
    assert window is not None
    assert window["mfu"] == 0.25


def test_a_processor_has_no_peak_and_a_gpu_that_of_its_own_name() -> None:
    assert peak_flops(torch.device("cpu")) is None
    assert peak_of("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_of("NVIDIA H100 PCIe") == 756e12
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("NVIDIA L4") == 121e12
    assert peak_of("NVIDIA L40") is None
    assert peak_of("NVIDIA GeForce GTX 1080") is None


def test_the_memory_of_a_rank_is_what_the_kernel_says() -> None:
    before = resident_bytes()
    block = np.ones(64 * 2**20, np.uint8)
    assert resident_bytes() - before == pytest.approx(block.nbytes, rel=0.1)
