"""Tells ranks that Ray Train has placed where they meet; the engine joins them, as anywhere.

Apart from the executor: Ray Train takes seconds to load, and data work does without.
"""

import os

from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train._internal.utils import get_address_and_port
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend


class MeetingConfig(TorchConfig):  # type: ignore[misc]
    """Ranks that are told the address of the first one, that of its host in the cluster."""

    @property
    def backend_cls(self) -> type:
        return _Meeting


class _Meeting(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:
        address, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(_meet_at, address, port)


def _meet_at(address: str, port: int) -> None:
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    _set_torch_distributed_env_vars()
