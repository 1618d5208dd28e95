"""What an increment of 1 % costs, beside the cost of that 1 % alone.

A whole recipe, from scan to shards: once the old corpus is there, pictures are added and it runs
again. Alone is the same recipe over what was added. Seconds of the processor, imports and the start
of the decoder process left out; each round begins with the same old dataset.
"""

import os
import shutil
import tempfile
from pathlib import Path

from figures import Row, row
from turns import Arm, cpu_of_all, in_turns, interval, shared_memory

from data_plane.pictures import write_pictures
from mmcore.core.executor import Executor
from mmcore.core.runner import Run
from mmcore.executors import make_executor
from mmcore.recipe.build import load_recipe

WIDTH = 500
RECIPE = """\
name: growing
source: {{path: {corpus}, layout: {{use: folder}}}}
clean: {{decode_image: , min_side: , flatness: , sign_image: }}
dedup:
  exact_duplicates: {{same: [image]}}
  near_duplicates: {{max_distance: {{image: 0}}}}
split: {{together: [image]}}
encode: {{encode_image: {{fit: inside, side: 341, subsampling: "420"}}}}
shard: {{samples_per_shard: 512}}
"""


def figures(num_pictures: int) -> list[Row]:
    """Return the cost of 1 % more, in seconds of the processor."""
    num_new = max(1, num_pictures // 100)
    with tempfile.TemporaryDirectory(dir=shared_memory()) as directory:
        scratch = Path(directory)
        write_pictures(scratch / "old", num_pictures=num_pictures + num_new, width=WIDTH)
        new = scratch / "new"
        new.mkdir()
        added = sorted((scratch / "old").iterdir())[num_pictures:]
        for path in added:
            path.rename(new / path.name)
        first = make_executor("local", num_workers=2)
        try:
            _run(scratch / "old", scratch / "root", first)
        finally:
            first.close()
        for path in new.iterdir():
            os.link(path, scratch / "old" / path.name)
        executor = make_executor("local", num_workers=1)
        try:
            taken = in_turns(
                {
                    "bare": _anew(new, scratch / "alone", executor, num_new),
                    "grown": _grown(scratch, executor, num_new),
                },
                rounds=6,
            )
        finally:
            executor.close()
    ours, alone = taken["grown"], taken["bare"]
    what = f"+{num_new:,} pictures on top of {num_pictures:,} / those alone, CPU s"
    return [row(what, ours.median, alone.median, goal=1.15, better="lower",
                value=ours.median / alone.median, note=f"1 / {interval(ours, alone)}")]  # fmt: skip


def _run(corpus: Path, root: Path, executor: Executor) -> int:
    recipe = root.with_suffix(".yaml")
    recipe.write_text(RECIPE.format(corpus=corpus))
    done = Run(load_recipe(str(recipe)).graph, root=str(root), executor=executor).run()
    return done["encode"].artifact.manifest.counts.kept


def _anew(corpus: Path, root: Path, executor: Executor, num: int) -> Arm:
    def again() -> float:
        before = cpu_of_all()
        kept = _run(corpus, root, executor)
        spent = cpu_of_all() - before
        assert kept == num, f"{kept} of {num} pictures were kept"
        shutil.rmtree(root)
        return spent

    return again


def _grown(scratch: Path, executor: Executor, num: int) -> Arm:
    old, root = scratch / "root", scratch / "grown"

    def again() -> float:
        # what is committed is never written again, and may have a second name
        shutil.copytree(old, root, copy_function=os.link)
        before = cpu_of_all()
        kept = _run(scratch / "old", root, executor)
        spent = cpu_of_all() - before
        assert kept == num, f"{kept} were taken in, and {num} were added"
        shutil.rmtree(root)
        return spent

    return again
