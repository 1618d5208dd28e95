"""Pictures and films of the generated corpus: a coloured shape on a textured field."""

import io
import math
from dataclasses import dataclass
from typing import Any

import av
import cv2
import numpy as np

Image = np.ndarray[Any, np.dtype[np.uint8]]
"""RGB, [H, W, 3]."""

SHAPES = ("circle", "cross", "diamond", "ring", "square", "star", "triangle")
COLOURS = {
    "red": (214, 39, 40),
    "green": (44, 160, 44),
    "blue": (31, 90, 200),
    "yellow": (240, 210, 40),
    "purple": (130, 60, 180),
    "orange": (255, 140, 20),
}
FIELDS = {
    "white": (236, 236, 232),
    "grey": (140, 140, 146),
    "black": (24, 24, 28),
    "brown": (110, 76, 50),
    "pink": (244, 180, 200),
    "teal": (70, 150, 150),
}
SIZES = {"small": 0.19, "medium": 0.27, "large": 0.36}
"""Radius of the shape, as a fraction of the shorter side."""
NUM_FRAMES = 12
FRAMES_PER_SECOND = 8
_SHIFT = 4
"""OpenCV draws with 4 fractional bits: shapes move smoothly."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is to be seen."""

    shape: str
    colour: str
    size: str
    field: str


def draw(scene: Scene, rng: np.random.Generator, *, width: int = 96, height: int = 96) -> Image:
    """Return a picture of the scene; place, turn and texture are drawn from `rng`."""
    centre = 0.5 + rng.uniform(-0.12, 0.12, size=2)
    turn = float(rng.uniform(-0.25, 0.25))
    return _paint(scene, _texture(scene, rng, width, height), centre, turn)


def film(scene: Scene, rng: np.random.Generator, *, side: int = 96) -> bytes:
    """Return an MP4 (H.264) of the shape moving across its field."""
    field = _texture(scene, rng, side, side)
    start, end = 0.5 + rng.uniform(-0.2, 0.2, size=(2, 2))
    frames = [
        _paint(scene, field.copy(), start + (end - start) * step, 2 * math.pi * float(step) / 3)
        for step in np.linspace(0, 1, NUM_FRAMES)
    ]
    out = io.BytesIO()
    # Neither the host nor the number of cores may show in the bytes. x264 decides by floating point
    # where it spends bits (mbtree), and gave 29 different films of 60 from the same frames: the
    # fastest preset with a constant quantizer has no such choice.
    options = {"preset": "ultrafast", "qp": "28", "flags": "+bitexact"}
    with av.open(out, "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            planes = cv2.cvtColor(frame, cv2.COLOR_RGB2YUV_I420)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode(None))
    return out.getvalue()


def to_png(image: Image) -> bytes:
    """Return a picture as PNG."""
    return _encoded(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def to_jpeg(image: Image, *, quality: int = 90) -> bytes:
    """Return a picture as JPEG."""
    return _encoded(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def decoded(data: bytes) -> Image:
    """Return a PNG or JPEG that was made here as a picture."""
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert image is not None, "what OpenCV wrote, it can read"
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def resized(image: Image, *, width: int, height: int) -> Image:
    """Return a picture at another size."""
    return np.asarray(
        cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8
    )


def _texture(scene: Scene, rng: np.random.Generator, width: int, height: int) -> Image:
    """Return the field: broad patches, unlike in any two pictures, and fine grain."""
    patches = rng.uniform(-44, 44, size=(5, 5, 1)).astype(np.float32)
    broad = cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    grain = rng.integers(-8, 9, size=(height, width, 1)).astype(np.float32)
    base = np.array(FIELDS[scene.field], dtype=np.float32)
    return np.asarray(np.clip(np.rint(base + broad + grain), 0, 255), dtype=np.uint8)


def _paint(scene: Scene, image: Image, centre: Any, turn: float) -> Image:
    height, width = image.shape[:2]
    radius = SIZES[scene.size] * min(width, height)
    x, y = float(centre[0]) * width, float(centre[1]) * height
    colour = COLOURS[scene.colour]
    if scene.shape in ("circle", "ring"):
        at = (_fixed(x), _fixed(y))
        thickness = -1 if scene.shape == "circle" else max(2, round(radius * 0.35))
        drawn = radius if scene.shape == "circle" else radius * 0.85
        cv2.circle(image, at, _fixed(drawn), colour, thickness, cv2.LINE_AA, _SHIFT)
        return image
    outline = [
        (_fixed(x + radius * r * math.cos(a + turn)), _fixed(y + radius * r * math.sin(a + turn)))
        for r, a in _outline(scene.shape)
    ]
    cv2.fillPoly(image, [np.array(outline, dtype=np.int32)], colour, cv2.LINE_AA, _SHIFT)
    return image


def _outline(shape: str) -> list[tuple[float, float]]:
    """Return the corners of a shape of radius 1 as (radius, angle)."""
    up = -math.pi / 2
    if shape == "star":
        return [(1.1 if i % 2 == 0 else 0.45, up + i * math.pi / 5) for i in range(10)]
    if shape == "cross":
        arm = math.atan2(0.3, 1.0)
        return [
            (r, up + quarter * math.pi / 2 + a)
            for quarter in range(4)
            for r, a in ((1.044, -arm), (1.044, arm), (0.424, math.pi / 4))
        ]
    if shape == "diamond":
        return [(1.2 if i % 2 == 0 else 0.65, up + i * math.pi / 2) for i in range(4)]
    first = up if shape == "triangle" else up + math.pi / 4
    num = 3 if shape == "triangle" else 4
    return [(1.1, first + i * 2 * math.pi / num) for i in range(num)]


def _fixed(value: float) -> int:
    return round(value * (1 << _SHIFT))


def _encoded(extension: str, image: Image, options: list[int]) -> bytes:
    done, data = cv2.imencode(extension, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert done, f"OpenCV cannot write {extension}"
    return data.tobytes()
