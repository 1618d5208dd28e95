"""`python training_driver.py TOLD`: a training in a process of its own, to be killed by a test."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any


def main(told: dict[str, Any]) -> None:
    # here: the module that starts this program imports it
    from disturbed_training import CONFIG, Disturbed
    from disturbing_loader import Disturbance
    from shards import artifact_of
    from tiny_models import TINY_MODEL

    from mmcore.core.manifest import FileRecord
    from mmcore.core.step import Inputs
    from mmcore.executors import make_executor

    artifacts = {
        name: artifact_of(name, Path(url), *(FileRecord(**file) for file in files))
        for name, (url, files) in told["inputs"].items()
    }
    inputs = Inputs(artifacts, {name: one.url for name, one in artifacts.items()})
    config = replace(CONFIG, epochs=told["epochs"])
    training = Disturbed(Path(told["directory"]), inputs, TINY_MODEL, config, told["pause"])
    Path(training.directory, "notes", "driver").write_text(str(os.getpid()))
    training.said = _Printing()  # type: ignore[assignment]
    executor = make_executor(told["executor"], num_workers=told["num_ranks"])
    try:
        training.run(
            [Disturbance(**one) for one in told["disturbances"]],
            num_ranks=[told["num_ranks"]],
            min_ranks=told["min_ranks"],
            executor=executor,
        )
    finally:
        executor.close()


class _Printing:
    def append(self, progress: Any) -> None:
        print(progress.message, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
