import io

import av
import numpy as np
import pytest

from mmcore.ingest.scenes import COLOURS, NUM_FRAMES, SHAPES, Scene, decoded, draw, film, to_png


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_shows_its_colour(shape: str) -> None:
    scene = Scene(shape=shape, colour="blue", size="large", field="white")
    image = draw(scene, np.random.default_rng(1), width=100, height=80)
    assert image.shape == (80, 100, 3)
    num_coloured = int((image == np.array(COLOURS["blue"], dtype=np.uint8)).all(axis=2).sum())
    assert 300 < num_coloured < 4_000


def test_no_two_shapes_cover_the_same_pixels() -> None:
    covered = set()
    for shape in SHAPES:
        scene = Scene(shape=shape, colour="blue", size="large", field="white")
        image = draw(scene, np.random.default_rng(1))
        covered.add((image == np.array(COLOURS["blue"], dtype=np.uint8)).all(axis=2).tobytes())
    assert len(covered) == len(SHAPES)


def test_a_png_gives_back_the_picture() -> None:
    scene = Scene(shape="ring", colour="red", size="small", field="teal")
    image = draw(scene, np.random.default_rng(1))
    assert np.array_equal(decoded(to_png(image)), image)


def film_of(number: int) -> bytes:
    shape, colour = SHAPES[number % len(SHAPES)], sorted(COLOURS)[number % len(COLOURS)]
    scene = Scene(shape=shape, colour=colour, size="medium", field="grey")
    return film(scene, np.random.default_rng(number))


def test_a_film_is_the_same_whatever_was_made_before_it() -> None:
    # what lies in memory around the frames must not show: x264 with mbtree fails here
    films = [film_of(number) for number in range(60)]
    held = [bytes(5_000 * number) for number in range(60)]
    assert [film_of(number) for number in reversed(range(60))] == films[::-1]
    assert len(held) == 60


def test_a_film_moves() -> None:
    with av.open(io.BytesIO(film_of(1))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == NUM_FRAMES
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 50
