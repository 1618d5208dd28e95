"""Reads event files with the messages and the checksum that tensorboardX brings."""

import struct
from typing import Any

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event


def read_messages(data: bytes) -> list[Any]:
    """Return the messages of a file; every checksum is looked at."""
    messages = []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12])[0] == masked(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked(body)
        messages.append(Event.FromString(body))
        data = data[16 + length :]
    return messages


def read_events(data: bytes) -> list[tuple[int, dict[str, float]]]:
    """Return (step, scalars by name), in order."""
    return [
        (event.step, {value.tag: value.simple_value for value in event.summary.value})
        for event in read_messages(data)
        if event.HasField("summary")
    ]


def masked(data: bytes) -> int:
    """Return the checksum as TensorFlow's record writer masks it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
