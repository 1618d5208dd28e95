"""Texts of different lengths in rows of one length: less padding, and no text cut."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def packed(texts: Sequence[Array], *, row_tokens: int) -> Mapping[str, Array]:
    """Return texts packed into as few rows as first-fit-decreasing finds.

    packed_ids int64 [P, row_tokens] padded with 0; packed_segment, the number of the text in
    `texts` plus 1, 0 where nothing is; packed_position, the place in the text. Longer texts are
    cut, empty ones are nowhere.
    """
    lengths = [min(len(ids), row_tokens) for ids in texts]
    free: list[int] = []
    places: list[tuple[int, int, int]] = []
    for text in sorted(range(len(texts)), key=lambda number: (-lengths[number], number)):
        length = lengths[text]
        if not length:
            continue
        row = next((row for row, room in enumerate(free) if room >= length), len(free))
        if row == len(free):
            free.append(row_tokens)
        places.append((text, row, row_tokens - free[row]))
        free[row] -= length
    shape = max(1, len(free)), row_tokens
    ids, segment, position = (np.zeros(shape, np.int64) for _ in range(3))
    for text, row, first in places:
        here = slice(first, first + lengths[text])
        ids[row, here] = texts[text][: lengths[text]]
        segment[row, here] = text + 1
        position[row, here] = np.arange(lengths[text])
    return {"packed_ids": ids, "packed_segment": segment, "packed_position": position}
