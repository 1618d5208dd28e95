"""Which rank this process is; the environment is read here and nowhere else."""

import os
from collections.abc import Mapping
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
    address: str = "127.0.0.1"
    """Of the first rank, where all of them meet."""
    port: int = 0
    serves_store: bool = True
    """Whether the first rank is the one that listens there; under torchrun its agent does."""

    @staticmethod
    def from_environment() -> "World":
        """Read what torchrun, Ray Train or our executor has set. Read nowhere else."""
        return World.from_variables(os.environ)

    @staticmethod
    def from_variables(variables: Mapping[str, str]) -> "World":
        """Return what variables of an environment say; ConfigError when they do not say it."""
        try:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
            rank, num_ranks, local_rank = (int(variables[name]) for name in names)
            num_local = int(variables.get("LOCAL_WORLD_SIZE", 1))
            return World(
                rank,
                num_ranks,
                local_rank,
                num_local,
                address=variables.get("MASTER_ADDR", "127.0.0.1"),
                port=int(variables.get("MASTER_PORT", 0)),
                serves_store=variables.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
            )
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
