import pytest

from mmcore.errors import ConfigError
from mmcore.train.config import TrainConfig
from mmcore.train.memory import check_memory, forecast_memory

P = 1_000_000


def states(config: TrainConfig, num_ranks: int) -> int:
    found = forecast_memory(config, num_trained=P, num_ranks=num_ranks)
    return found.total - found.bucket


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_half_precision_takes_what_the_theory_of_zero_says(num_ranks: int) -> None:
    expected = [16 * P, 4 * P + 12 * P // num_ranks, 2 * P + 14 * P // num_ranks]
    expected.append(16 * P // num_ranks)
    for stage, wanted in enumerate(expected):
        config = TrainConfig(zero_stage=stage, precision="bf16")  # type: ignore[arg-type]
        assert states(config, num_ranks) == wanted


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_float32_takes_a_copy_more_wherever_something_is_shared_out(num_ranks: int) -> None:
    copy = 4 * P // num_ranks
    expected = [16 * P, 8 * P + 8 * P // num_ranks + copy, 4 * P + 12 * P // num_ranks + copy]
    expected.append(16 * P // num_ranks + copy)
    for stage, wanted in enumerate(expected):
        config = TrainConfig(zero_stage=stage)  # type: ignore[arg-type]
        assert states(config, num_ranks) == wanted


def test_a_rank_holds_the_gradients_that_it_steps_by_once_they_are_exchanged() -> None:
    kept = {
        stage: forecast_memory(TrainConfig(zero_stage=stage), num_trained=P, num_ranks=4).held
        for stage in (1, 2)
    }
    assert kept == {1: 8 * P, 2: 8 * P}


def test_one_rank_alone_has_a_bucket_where_it_cannot_do_without() -> None:
    plain, offloaded, half = (
        TrainConfig(),
        TrainConfig(offload_optimizer=True),
        TrainConfig(precision="bf16"),
    )
    found = [forecast_memory(one, num_trained=P).bucket for one in (plain, offloaded, half)]
    assert found == [0, 4 * P, 2 * P]


def test_frozen_weights_have_no_gradient_and_no_moments() -> None:
    config = TrainConfig(zero_stage=0)
    found = forecast_memory(config, num_trained=P, num_frozen=10 * P, num_ranks=2)
    assert found.total == 16 * P + 40 * P


def test_an_average_of_the_weights_and_fewer_moments_count() -> None:
    assert states(TrainConfig(zero_stage=0, ema_decay=0.9), 2) == 20 * P
    assert states(TrainConfig(zero_stage=3, optimizer="lion"), 2) == 8 * P


def test_what_lies_with_the_host_is_told_apart() -> None:
    config = TrainConfig(zero_stage=3, precision="bf16", offload_optimizer=True, offload_param=True)
    found = forecast_memory(config, num_trained=P, num_ranks=2)
    assert found.offloaded == found.optimizer + found.weights == 7 * P


def test_more_memory_than_there_is_is_refused_with_both_figures() -> None:
    config = TrainConfig(zero_stage=3, precision="bf16", bucket_elements=2)
    sizes = {"num_trained": 10**9, "num_frozen": 0, "num_ranks": 2, "num_local_ranks": 2}
    # 2 x (16 / 2) bytes a weight, the buckets, and 2 x (12 / 2) to write checkpoints from
    check_memory(config, **sizes, available_bytes=28 * 10**9 + 8)
    with pytest.raises(
        ConfigError,
        match=r"1,000,000,000 weights with train.zero_stage=3.* needs 14.00 GB for each of 2 "
        r"ranks .*6.00 GB of it to write checkpoints.* and 27.00 GB are free. Use a higher",
    ):
        check_memory(config, **sizes, available_bytes=27 * 10**9)


def test_a_gpu_and_its_host_are_each_asked_for_their_part() -> None:
    config = TrainConfig(zero_stage=3, precision="bf16", bucket_elements=2, offload_optimizer=True)
    sizes = {"num_trained": 10**9, "num_frozen": 0, "num_ranks": 2, "num_local_ranks": 2}
    enough = {"available_bytes": 24 * 10**9, "device_bytes": 2 * 10**9 + 8}
    check_memory(config, **sizes, **enough)
    with pytest.raises(ConfigError, match=r"needs 2.00 GB of GPU memory for each rank"):
        check_memory(config, **sizes, **{**enough, "device_bytes": 2 * 10**9 - 1})
    with pytest.raises(ConfigError, match=r"needs 12.00 GB for each of 2 ranks"):
        check_memory(config, **sizes, **{**enough, "available_bytes": 24 * 10**9 - 1})
