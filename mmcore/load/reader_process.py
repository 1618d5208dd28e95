"""The process that reads and decodes for one rank: `python -m mmcore.load.reader_process ...`.

It is told what to put into which slot of the ring, a line of JSON each, and answers with a line
that says where the arrays lie. It ends with the connection to its trainer.
"""

import contextlib
import json
import mmap
import os
import queue
import signal
import socket
import sys
import threading
import time
from typing import Any

from tokenizers import Tokenizer

from mmcore.errors import MmError
from mmcore.load.cache import Group, ShardCache
from mmcore.load.decode import DecodeConfig, Decoder
from mmcore.load.reading import SampleReader, Wanted
from mmcore.load.ring import Arena, slot_of

_LOOK_SECONDS = 0.5


def main() -> None:
    """Fill slots until the trainer is gone."""
    control, ring, slot_bytes, parent = (int(one) for one in sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which then lets go
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    lines = socket.socket(fileno=control).makefile("rwb")
    say = _Voice(lines)
    memory = mmap.mmap(ring, 0)
    decoder = _decoder(json.loads(lines.readline()))
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(lines, asked, decoder.reader, say), daemon=True).start()
    while True:
        question = asked.get()
        answer: dict[str, Any] = {"slot": question["slot"]}
        arena = Arena(slot_of(memory, question["slot"], slot_bytes))
        try:
            wanted = [Wanted.from_json(one) for one in question["wanted"]]
            decoder.fill(wanted, arena, seed=question["seed"])
            answer["placed"] = arena.placed
        except (MmError, MemoryError, OSError) as error:
            answer["error"] = [type(error).__name__, str(error)]
        say(answer)


class _Voice:
    """Says one line after the other, from whichever thread."""

    def __init__(self, lines: Any) -> None:
        self._lines = lines
        self._lock = threading.Lock()

    def __call__(self, message: dict[str, Any]) -> None:
        try:
            with self._lock:
                self._lines.write(json.dumps(message).encode() + b"\n")
                self._lines.flush()
        except ConnectionError:  # the trainer is gone
            os._exit(0)


def _decoder(told: dict[str, Any]) -> Decoder:
    config = DecodeConfig.from_json(told["config"])
    tokenizer = Tokenizer.from_str(told["tokenizer"])
    cache = ShardCache(*told["cache"]) if told["cache"] else None
    return Decoder(config, tokenizer, SampleReader(cache), told["num_threads"])


def _listen(
    lines: Any, asked: "queue.SimpleQueue[dict[str, Any]]", reader: SampleReader, say: _Voice
) -> None:
    """Take questions while batches are made: what they will need is fetched meanwhile."""
    # a trainer may end with answers unread, which resets the connection
    with contextlib.suppress(ConnectionError):
        while line := lines.readline():
            question = json.loads(line)
            reader.learn([Group.from_json(one) for one in question["groups"]])
            if "slot" in question:
                asked.put(question)
            if "is_there" in question:
                say({"is_there": True})
    os._exit(0)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
