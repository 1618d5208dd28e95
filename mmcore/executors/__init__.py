"""Where work is done: in processes of this machine, or on a Ray cluster. The bytes are the same."""

from mmcore.core.executor import Executor
from mmcore.errors import ConfigError


def make_executor(name: str, *, num_workers: int) -> Executor:
    """Return an executor by name; processes start when the first work arrives."""
    if name == "local":
        from mmcore.executors.local import LocalExecutor

        return LocalExecutor(num_workers=num_workers)
    if name == "ray":
        from mmcore.executors.ray import RayExecutor

        return RayExecutor(num_workers=num_workers)
    raise ConfigError(f"--executor {name!r} is not known. Use local or ray.")
