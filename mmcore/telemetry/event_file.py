"""Figures as TensorBoard reads them: an event file, as bytes, so that it can go to a bucket too.

The framing is TensorFlow's TFRecord (tensorflow/core/lib/io/record_writer.h): length, its masked
CRC-32C, data, its masked CRC-32C. The data is two Protocol Buffers messages, of which a few fields
are used: Event (tensorflow/core/util/event.proto) and Summary (core/framework/summary.proto).
"""

import struct
from collections.abc import Mapping

EVENT_FILE_NAME = "events.out.tfevents.mm"
_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
_DOUBLE, _BYTES, _VARINT, _FLOAT = 1, 2, 0, 5  # wire types


class EventFile:
    """Scalars by name and step; `data` is the whole file so far."""

    def __init__(self, *, wall_time: float) -> None:
        self.data = bytearray(_record(_event(wall_time, _field(3, _BYTES, b"brain.Event:2"))))

    def scalars(self, values: Mapping[str, float], *, step: int, wall_time: float) -> None:
        """Add the figures of one step."""
        summary = b"".join(
            _field(1, _BYTES, _field(1, _BYTES, name.encode()) + _field(2, _FLOAT, value))
            for name, value in values.items()
        )
        about = _field(2, _VARINT, step) + _field(5, _BYTES, summary)
        self.data += _record(_event(wall_time, about))


def _event(wall_time: float, rest: bytes) -> bytes:
    return _field(1, _DOUBLE, wall_time) + rest


def _field(number: int, wire_type: int, value: float | bytes) -> bytes:
    tag = bytes([number << 3 | wire_type])
    if isinstance(value, bytes):
        return tag + _varint(len(value)) + value
    if wire_type == _VARINT:
        return tag + _varint(int(value))
    return tag + struct.pack("<d" if wire_type == _DOUBLE else "<f", value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    # rotated and shifted, for a CRC of data that holds CRCs is a poor one
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        found.append(byte)
    return tuple(found)


_TABLE = _table()
