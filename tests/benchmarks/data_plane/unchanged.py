"""A run that has nothing to do over a million samples, beyond interpreter and imports.

The samples are captions in tables. The scan is a real one. What the steps after it would have
written is written by the writers that they use, once, and is theirs under the names that a run
would give them: a table of rows for each task, a tar with its indexes for each shard.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from asked import ONE_THREAD, OURS
from figures import REPOSITORY, Row, row
from turns import Arm, in_turns, shared_memory

from mmcore import storage
from mmcore.core.manifest import Counts, FileRecord, Manifest, commit_manifest
from mmcore.core.rows import file_record, write_part
from mmcore.core.runner import Run
from mmcore.core.step import Inputs, Step, TaskContext
from mmcore.executors import make_executor
from mmcore.recipe.build import load_recipe
from mmcore.sample import Part, PartRef, Sample, sha256_hex
from mmcore.shard.tar import TarWriter

NUM_TABLES = 20
PER_TASK = 1000
PER_SHARD = 2000
RECIPE = f"""\
name: captions
source:
  path: {{corpus}}
  layout: {{{{use: table, columns: {{{{key: id, caption: text}}}}}}}}
  samples_per_task: {PER_TASK}
clean: {{{{repair_caption: , caption_length: }}}}
dedup: {{{{same: [text]}}}}
split: {{{{together: [text]}}}}
encode: {{{{encode_text: }}}}
shard: {{{{samples_per_shard: {PER_SHARD}}}}}
"""
LOADED = """
import atexit, runpy, sys
output = sys.argv.pop(1)
atexit.register(lambda: open(output, "w").write("\\n".join(sys.modules)))
runpy.run_module("mmcore", run_name="__main__", alter_sys=True)
"""
"""What a run has loaded when it ends."""
IMPORTS = """
import contextlib, importlib, sys
for name in open(sys.argv[1]).read().split():
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
"""


def figures(num_samples: int) -> list[Row]:
    """Return the seconds that `mm run` takes, beyond those of the imports."""
    with tempfile.TemporaryDirectory(dir=shared_memory()) as scratch:
        corpus, root = Path(scratch, "corpus"), Path(scratch, "root")
        _write_tables(corpus, num_samples)
        recipe = Path(scratch, "recipe.yaml")
        recipe.write_text(RECIPE.format(corpus=corpus))
        num_records = _commit_all(str(recipe), str(root), num_samples)
        run, loaded = ["run", str(recipe), "--root", str(root), "--json"], f"{scratch}/loaded"
        _wall([sys.executable, "-c", LOADED, loaded, *run], code=4)()
        taken = in_turns(
            {
                "imports": _wall([sys.executable, "-c", IMPORTS, loaded], code=0),
                "unchanged": _wall([sys.executable, "-m", "mmcore", *run], code=4),
            },
            rounds=9,
            steady="imports",
        )
    beyond = taken["unchanged"].median - taken["imports"].median
    what = f"unchanged rerun over {num_samples:,} samples, seconds beyond imports"
    note = f"tasks of {PER_TASK:,}, shards of {PER_SHARD:,}: {num_records:,} files in the manifests"
    return [row(what, taken["unchanged"].median, taken["imports"].median, goal=0.1, better="lower",
                value=beyond, note=note)]  # fmt: skip


def _wall(command: list[str], *, code: int) -> Arm:
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": OURS}

    def again() -> float:
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, capture_output=True, cwd=REPOSITORY)
        seconds = time.perf_counter() - started
        assert done.returncode == code, done.stderr.decode()[-400:] + done.stdout.decode()[-400:]
        return seconds

    return again


def _write_tables(corpus: Path, num_samples: int) -> None:
    corpus.mkdir()
    for number in range(NUM_TABLES):
        keys = range(number, num_samples, NUM_TABLES)
        table = pa.table(
            {"id": [f"s{key:07d}" for key in keys], "text": [f"caption {key}" for key in keys]}
        )
        pq.write_table(table, corpus / f"captions-{number:03d}.parquet")


def _commit_all(recipe: str, root: str, num_samples: int) -> int:
    """Commit what a run would have made, and return how many files the manifests name."""
    graph = load_recipe(recipe).graph
    run = Run(graph, root=root, executor=make_executor("local", num_workers=1))
    plan = run.plan()
    run.run_step("scan", plan)
    assert run.ground is not None
    url, files = "", ()
    num = 0
    for step in graph.steps:
        fingerprint, identity = graph.identities(run.ground)[step.name]
        before, url = url, graph.artifact_url(root, step.name, fingerprint)
        if step.name == "shard":
            files = _shards(url, num_samples)
        elif before:
            for record in files:
                storage.link(storage.join(before, record.path), storage.join(url, record.path))
        else:
            files = _tables(step, url, num_samples)
        facts = {"increments": [{"dataset": fingerprint[:16]}]} if step.name == "shard" else {}
        counts = Counts(found=num_samples, kept=num_samples)
        commit_manifest(url, Manifest(step.name, fingerprint, identity, counts, files, facts))
        num += len(files)
    return num


def _tables(step: Step, url: str, num_samples: int) -> tuple[FileRecord, ...]:
    context = TaskContext(Inputs({}, {}), url, url)
    files: list[FileRecord] = []
    digest = sha256_hex(b"caption")
    for number, first in enumerate(range(0, num_samples, PER_TASK)):
        rows = []
        for key in range(first, min(first + PER_TASK, num_samples)):
            part = Part(ref=PartRef("ingest", f"part-{number:06d}.bin", 10 * key, 10, digest))
            rows.append(("", Sample(f"s{key:07d}", {"txt": part}, {"original_key": f"s{key:07d}"})))
        files += write_part(f"part-{number:06d}", rows, step=step.name, context=context).files
        files.append(file_record(url, f"part-{number:06d}.bin", b"caption   " * PER_TASK))
    return tuple(files)


def _shards(url: str, num_samples: int) -> tuple[FileRecord, ...]:
    tar = TarWriter()
    for number in range(PER_SHARD):
        tar.add(f"s{number:07d}.txt", b"caption")
    first = file_record(url, "train/train-000000.tar", tar.finish(), num_samples=PER_SHARD)
    files = [first]
    for number in range(-(-num_samples // PER_SHARD)):
        path = f"train/train-{number:06d}"
        if number:
            storage.link(storage.join(url, first.path), storage.join(url, f"{path}.tar"))
            files.append(replace(first, path=f"{path}.tar"))
        files += [file_record(url, f"{path}{end}", b"index") for end in (".tar.idx", ".idx")]
    return tuple(sorted(files, key=lambda record: record.path))
