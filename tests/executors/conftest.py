import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tasks
from processes import import_path

from mmcore.core.executor import Executor


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Executor]:
    """One cluster for the tests of a module; its workers can import what the tests define."""
    from mmcore.executors.ray import RayExecutor

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = import_path(str(Path(tasks.__file__).parent))
    executor = RayExecutor(num_workers=2)
    yield executor
    executor.close()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
