"""Connected components in flat arrays."""

from typing import Any

import numpy as np

Ints = np.ndarray[Any, np.dtype[np.int64]]


def components(num_nodes: int, one: Ints, other: Ints) -> Ints:
    """Return for each node the lowest node that it is connected to, over edges one-other.

    Every round hooks roots onto lower roots and flattens all paths, so the number of rounds grows
    with the logarithm of the longest chain, and never depends on the order of the edges.
    """
    root = np.arange(num_nodes, dtype=np.int64)
    while len(one):
        left, right = root[one], root[other]
        apart = left != right
        if not apart.any():
            break
        one, other, left, right = one[apart], other[apart], left[apart], right[apart]
        np.minimum.at(root, np.maximum(left, right), np.minimum(left, right))
        while True:
            above = root[root]
            if np.array_equal(above, root):
                break
            root = above
    return root
