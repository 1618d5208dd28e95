"""`python toy_driver.py CORPUS ROOT EXECUTOR WORKERS`: a run of the toy recipe to be killed by a test."""

import sys
from pathlib import Path

from toy import Shout, toy_graph

from mmcore.core.runner import Event, Run
from mmcore.executors import make_executor

PAUSE = 0.1
"""Seconds for each sample: part of the identity of the step, so the same in every run."""


def tell(event: Event) -> None:
    print(event.kind, event.step, flush=True)


def main(corpus: str, root: str, executor: str, num_workers: str) -> None:
    graph = toy_graph(Path(corpus), stage=Shout(pause=PAUSE))
    where = make_executor(executor, num_workers=int(num_workers))
    try:
        Run(graph, root=root, executor=where, listener=tell).run()
    finally:
        where.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
