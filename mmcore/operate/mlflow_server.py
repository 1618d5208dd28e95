"""`python -m mmcore.operate.mlflow_server ROOT OPTION...`: MLflow's server over a root's own store.

Its tables are made first, under the lock that runs and the dashboard take for it: two processes
that make them at once break each other.
"""

import fcntl
import os
import sys


def main(root: str, options: list[str]) -> None:
    """Make the tables if there are none, and become the server."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and _has_no_store(root):
        from mmcore.telemetry.model_registry import (
            ModelRegistry,  # a second and a half, on a first start
        )

        ModelRegistry(root)
    command = [sys.executable, "-m", "mlflow", "server", *options]
    os.execv(sys.executable, command)  # noqa: S606 - none is wanted


def _has_no_store(root: str) -> bool:
    """Return whether there is none; one that is being made by another is waited for."""
    with open(os.path.join(root, "mlflow.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return not os.path.exists(os.path.join(root, "mlflow.db"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
