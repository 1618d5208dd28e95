"""Stages whose decoder some samples kill: what hostile files do to native code, on demand."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from mmcore.core.stage import Stage, Worker
from mmcore.errors import ConfigError, IntegrityError, SampleError
from mmcore.sample import Dropped, Outcome, Sample


@dataclass(frozen=True, kw_only=True)
class Hostile(Stage):
    """Do what the text says: `abort`, `segfault`, `loop`, `bomb`, `exit`, `killed`, `bug` ...

    Any other text is turned to upper case.
    """

    reads = ("text",)
    marks: str = ""
    """A directory where each look at a sample leaves a line: `KEY PID`."""

    def build(self) -> Worker:
        def obey(sample: Sample) -> Outcome:
            word = sample.data("txt").decode()
            if self.marks:
                with open(f"{self.marks}/looks", "a") as looks:
                    looks.write(f"{sample.key} {os.getpid()}\n")
            obey_word(word)
            if word == "bad":
                raise SampleError("text_bad", "it says so")
            if word == "short":
                return Dropped(sample, "text_short", "5 < 6", twin="t")
            done = sample.with_part("up.txt", word.upper().encode())
            return done.with_scores(num_chars=float(len(word))).with_meta(
                word=word, found=[1, None]
            )

        return obey


@dataclass(frozen=True, kw_only=True)
class Unbuildable(Stage):
    """Refuse to be built."""

    reads = ("text",)

    def build(self) -> Worker:
        raise ConfigError("there is no such table. Give another.")


@dataclass(frozen=True, kw_only=True)
class Corrupting(Stage):
    """Leave something behind that kills the sample after it, as a damaged heap does."""

    reads = ("text",)

    def build(self) -> Worker:
        damaged: list[bool] = []

        def work(sample: Sample) -> Outcome:
            if damaged:
                os.abort()
            if sample.data("txt") == b"damage":
                damaged.append(True)
            return sample

        return work


def obey_word(word: str) -> None:
    """Do what a word says; most say nothing."""
    if word == "abort":
        os.abort()
    elif word == "segfault":
        ctypes.string_at(0)
    elif word == "loop":
        while True:
            pass
    elif word == "sleep":
        time.sleep(3600)
    elif word == "bomb":
        held = [np.ones(2**24, np.uint8) for _ in range(2**10)]
        assert held
    elif word == "some_mb":
        assert np.ones(2**26, np.uint8)[-1] == 1
    elif word == "exit":
        os._exit(3)
    elif word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "bug":
        raise ZeroDivisionError("a bug of the stage")
    elif word == "broken":
        raise IntegrityError("part-3 holds other bytes than were recorded")
