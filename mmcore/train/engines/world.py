"""Which rank this process is; the environment is read here and nowhere else."""

import os
from dataclasses import dataclass

import torch

from mmcore.errors import ConfigError


@dataclass(frozen=True)
class World:
    """Which rank this process is, among how many."""

    rank: int
    num_ranks: int
    local_rank: int
    """Among the ranks of this host: the number of its GPU."""
    num_local_ranks: int = 1
    """Of this host, which share its memory."""

    @staticmethod
    def from_environment() -> "World":
        """Read what torchrun, Ray Train or our executor has set. Read nowhere else."""
        try:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
            rank, num_ranks, local_rank = (int(os.environ[name]) for name in names)
            num_local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
            return World(rank, num_ranks, local_rank, num_local)
        except KeyError as error:
            raise ConfigError(
                f"{error.args[0]} is not set, so this process does not know which rank it is. "
                "Start training through an executor, or with torchrun."
            ) from error

    @property
    def device(self) -> torch.device:
        """Return the GPU of this rank, or the CPU."""
        if torch.cuda.is_available():
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")
