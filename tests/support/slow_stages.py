"""Stages that take their time, so that a test can stop, freeze or kill a run in the middle of one."""

import ctypes
import signal
import time
from dataclasses import dataclass

from mmcore.core.stage import Stage, Worker
from mmcore.sample import Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class Slow(Stage):
    """Take a while over each sample."""

    reads = ("text",)
    seconds: float

    def build(self) -> Worker:
        def pause(sample: Sample) -> Outcome:
            time.sleep(self.seconds)
            return sample

        return pause


@dataclass(frozen=True, kw_only=True)
class Deaf(Stage):
    """Be for minutes in a library that neither Python nor a signal can interrupt."""

    reads = ("text",)

    def build(self) -> Worker:
        def pause(sample: Sample) -> Outcome:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
            ctypes.CDLL(None).sleep(600)
            return sample

        return pause
