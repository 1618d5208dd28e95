"""A scanned corpus cut into tasks by its files' names alone: whoever does a task groups its files.

The driver holds the lines of the scan as columns; nothing of it is an object for each sample.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmcore.core.step import Task, TasksMadeLate
from mmcore.ingest.layout import SourceFile
from mmcore.sample import Json


def in_slices(files: pa.Table, around: pa.ChunkedArray, num_together: int) -> Sequence[Task]:
    """Return a task for each so many different things that files lie around, in their order."""
    order = pc.sort_indices(
        pa.table({"around": around, "path": files["path"]}),
        sort_keys=[("around", "ascending"), ("path", "ascending")],
    )
    files, around = files.take(order).combine_chunks(), around.take(order).combine_chunks()
    begins = np.ones(files.num_rows, bool)
    if files.num_rows:
        begins[1:] = pc.not_equal(around[1:], around[:-1]).to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(begins)[::num_together]
    ends = np.append(starts[1:], files.num_rows)

    def payload(number: int) -> Json:
        start, end = int(starts[number]), int(ends[number])
        some = files.slice(start, end - start)
        columns = (some[name].to_pylist() for name in ("path", "num_bytes", "sha256"))
        return {"files": [list(values) for values in zip(*columns, strict=True)]}

    return TasksMadeLate([f"part-{number:06d}" for number in range(len(starts))], payload)


def files_of(payload: Any) -> list[SourceFile]:
    """Return the files that a task is to group."""
    return [SourceFile(*values) for values in payload["files"]]
