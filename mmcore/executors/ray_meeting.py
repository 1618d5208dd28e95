"""What we do otherwise than Ray Train: where ranks meet, and an end for who watches over them.

Apart from the executor: Ray Train takes seconds to load, and data work does without.
"""

import os
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.train._internal.base_worker_group import BaseWorkerGroup
from ray.train._internal.utils import get_address_and_port
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController


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


def run_controller(controllers: list[ActorHandle], **options: Any) -> Any:
    """Start the actor that watches over a group of ranks, note it in `controllers`, and wait.

    As Ray Train does, but for the note. A driver whose connection to the actor is closed
    gives the group up, and the actor would start its ranks again beside those of the next group.
    """
    here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
    environment = {"env_vars": get_env_vars_to_propagate()}
    watcher = ray.remote(num_cpus=0, label_selector=here, runtime_env=environment)(TrainController)
    controllers.append(watcher.remote(**options))
    ray.get(controllers[-1].run.remote())
    return ray.get(controllers[-1].get_result.remote())
