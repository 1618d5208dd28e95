"""A gang of ranks that takes long, to be stopped by a test."""

import os
import time
from collections.abc import Mapping
from typing import Any


def sleep_long(config: Mapping[str, Any]) -> None:
    """Say that this rank is there, then sleep for minutes."""
    config["report"]({"rank": os.environ["RANK"], "pid": os.getpid()})
    time.sleep(300)
