"""Files that are small and want much: bombs of every format that a decoder may meet."""

import io
import struct
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, rows: bytes = b"", *, extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            extra,
            _chunk(b"IDAT", rows),
            _chunk(b"IEND", b""),
        )
    )


def _zeros(num_bytes: int) -> bytes:
    """Zeros, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    block = bytes(2**20)
    pieces = [packer.compress(block) for _ in range(num_bytes // 2**20)]
    return b"".join((*pieces, packer.flush()))


def png_of_400_megapixels() -> bytes:
    return _png(20_000, 20_000, _zeros(1_200_000_000 // 16))


def png_at_the_limit() -> bytes:
    """63 megapixels, a thousandth of that as a file: allowed by its size, 190 MB of pixels."""
    return _png(7_937, 7_937, zlib.compress(bytes(7_937 * (3 * 7_937 + 1)), 1))


def png_with_text_that_grows() -> bytes:
    text = b"comment\x00\x00" + _zeros(300 * 2**20)
    return _png(8, 8, zlib.compress(bytes(8 * 25)), extra=_chunk(b"zTXt", text))


def gif_of_4_gigapixels() -> bytes:
    data = bytearray(_saved("GIF", (8, 8)))
    struct.pack_into("<HH", data, 6, 65_535, 65_535)
    return bytes(data)


def gif_of_a_million_frames() -> bytes:
    frame = b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00"
    header = b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
    return header + frame * 1_000_000 + b";"


def tiff_of_16_gigapixels() -> bytes:
    data = bytearray(_saved("TIFF", (8, 8)))
    at = struct.unpack_from("<I", data, 4)[0]
    for entry in range(struct.unpack_from("<H", data, at)[0]):
        tag = struct.unpack_from("<H", data, at + 2 + 12 * entry)[0]
        if tag in (256, 257):
            struct.pack_into("<HIHH", data, at + 4 + 12 * entry, 4, 1, 0, 2)
    return bytes(data)


def webp_of_268_megapixels() -> bytes:
    data = bytearray(_saved("WEBP", (8, 8)))
    at = data.index(b"VP8 ") + 8 + 6
    struct.pack_into("<HH", data, at, 16_383, 16_383)
    return bytes(data)


def jpeg_of_4_gigapixels() -> bytes:
    data = bytearray(_saved("JPEG", (8, 8)))
    at = data.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", data, at, 65_500, 65_500)
    return bytes(data)


def jpeg_of_ten_thousand_scans() -> bytes:
    """A progressive picture whose last scan is repeated: work that grows with scans times pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (2_000, 2_000)).save(buffer, "JPEG", progressive=True, quality=5)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 10_000 + b"\xff\xd9"


def svg_of_a_billion_laughs() -> bytes:
    entities = "".join(
        f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' if i else '<!ENTITY l0 "ha">' for i in range(10)
    )
    return f'<?xml version="1.0"?><!DOCTYPE svg [{entities}]><svg>&l9;</svg>'.encode()


def svg_that_asks_elsewhere() -> bytes:
    return b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


def wav_of_4_gigabytes() -> bytes:
    form = struct.pack("<HHIIHH", 1, 2, 768_000, 3_072_000, 4, 16)
    return (
        b"RIFF" + struct.pack("<I", 0xFFFF_FFF0) + b"WAVEfmt " + struct.pack("<I", 16) + form
        + b"data" + struct.pack("<I", 0xFFFF_FF00) + bytes(4_000)
    )  # fmt: skip


def flac_that_says_a_day() -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(16_000), 16_000, format="FLAC")
    data = bytearray(buffer.getvalue())
    # STREAMINFO: the last 36 bits before the MD5 are the number of samples
    struct.pack_into(">I", data, 8 + 14, 24 * 3_600 * 16_000)
    return bytes(data)


def mp4_of_4_gigapixels() -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    data = bytearray(buffer.getvalue())
    at = -1
    while (at := data.find(b"\xff\xc0", at + 1)) >= 0:
        struct.pack_into(">HH", data, at + 5, 65_500, 65_500)
    return bytes(data)


def text_of_40_megabytes() -> bytes:
    return b"la " * 14_000_000


def _saved(image_format: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, image_format)
    return buffer.getvalue()


BOMBS: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    make.__name__: (extension, make)
    for extension, make in (
        ("png", png_of_400_megapixels),
        ("png", png_with_text_that_grows),
        ("gif", gif_of_4_gigapixels),
        ("tiff", tiff_of_16_gigapixels),
        ("webp", webp_of_268_megapixels),
        ("jpg", jpeg_of_4_gigapixels),
        ("svg", svg_of_a_billion_laughs),
        ("svg", svg_that_asks_elsewhere),
        ("wav", wav_of_4_gigabytes),
        ("flac", flac_that_says_a_day),
        ("mp4", mp4_of_4_gigapixels),
        ("txt", text_of_40_megabytes),
    )
}
"""By name: the extension, and what makes the file."""
