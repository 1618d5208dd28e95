"""Memory is flat in the size of a corpus: neither the driver nor a worker holds what it has seen."""

import json
import os
import subprocess
import sys
from pathlib import Path

import peak_driver
import pytest
from processes import import_path

SAMPLES_PER_TABLE = 64
FEW, MANY = 4, 80
"""Tables: as many tasks as are under way at a time, and twenty times as many."""
MOST = {"driver": 1.105, "worker": 1.04}
"""Of the driver more: it gathers up to 8,192 rows for a group of the dataset's table, and the
smallest corpus has 256."""
RECIPE = """\
name: captions
source: {{path: {corpus}, layout: {{use: table, columns: {{key: id, caption: text}}}}}}
clean: {{repair_caption: , caption_length: }}
dedup: {{same: [text]}}
split: {{together: [text]}}
encode: {{encode_text: }}
shard: {{samples_per_shard: 32}}
"""


def peaks(directory: Path, num_tables: int) -> dict[str, int]:
    corpus = directory / "corpus"
    corpus.mkdir(parents=True)
    for table in range(num_tables):
        numbers = range(table * SAMPLES_PER_TABLE, (table + 1) * SAMPLES_PER_TABLE)
        lines = [{"id": f"c{i:06d}", "text": f"what is said of number {i} alone"} for i in numbers]
        (corpus / f"t{table:04d}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    recipe = directory / "recipe.yaml"
    recipe.write_text(RECIPE.format(corpus=corpus))
    command = [sys.executable, peak_driver.__file__, str(recipe), str(directory / "root")]
    directory_of_driver = str(Path(peak_driver.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": import_path(directory_of_driver)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("kept") == num_tables * SAMPLES_PER_TABLE
    assert min(found.values()) > 10 << 20, f"that is no process: {found}"
    return found


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_twenty_times_the_corpus_makes_neither_the_driver_nor_a_worker_larger(
    tmp_path: Path,
) -> None:
    few, many = peaks(tmp_path / "few", FEW), peaks(tmp_path / "many", MANY)
    ratios = {name: many[name] / few[name] for name in few}
    assert all(ratios[name] <= MOST[name] for name in MOST), f"{few} has become {many}: {ratios}"
