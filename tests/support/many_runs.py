"""Makes up records of runs in the real format, for pages that have to be quick with thousands.

python tests/support/many_runs.py ROOT 10000
"""

import json
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

_STEPS = (
    "scan",
    "ingest",
    "clean",
    "dedup",
    "split",
    "tokenizer",
    "encode",
    "shard",
    "train",
    "evaluate",
    "register",
)
_INPUTS = {
    "scan": [], "ingest": ["scan"], "clean": ["ingest"], "dedup": ["clean"], "split": ["dedup"],
    "tokenizer": ["split"], "encode": ["split"], "shard": ["encode"], "train": ["shard", "tokenizer"],
    "evaluate": ["train", "shard"], "register": ["train", "evaluate", "shard"],
}  # fmt: skip
_STATUSES = (
    ["done"] * 70
    + ["nothing_to_do"] * 15
    + ["failed"] * 8
    + ["cancelled"] * 4
    + ["interrupted"] * 2
    + ["running"]
)
_ERRORS = (
    "clean: 212 of 398 samples are broken (image_undecodable 212), more than max_quarantined = 0.2 allows.",
    "cannot write /data/mm/steps: [Errno 28] No space left on device. The disk is full.",
    "rank 1 of 4 ended with exit code -9: out of memory?",
)
_NEWEST = datetime(2026, 11, 1, tzinfo=UTC)


def make_runs(
    root: str | Path, num_runs: int, *, seed: int = 0, with_events: bool = True
) -> list[str]:
    """Write `num_runs` runs below a root and return their ids, the oldest first.

    Those that say `running` have no process: they died.
    """
    chance = random.Random(seed)
    made = []
    for index in range(num_runs):
        started = _NEWEST - timedelta(minutes=13 * (num_runs - index), seconds=chance.randrange(60))
        run_id = f"{started:%Y%m%d-%H%M%S}-{chance.randrange(1000):03d}{chance.getrandbits(16):04x}"
        status = chance.choice(_STATUSES)
        seconds = round(chance.lognormvariate(5, 1), 3)
        name = chance.choice(("stamps", "birds", "radio", "street_signs", "recipes"))
        record = {
            "format": "mm.run",
            "format_version": 1,
            "run_id": run_id,
            "recipe": f"configs/recipes/{name}.yaml",
            "name": name,
            "executor": chance.choice(("local", "local", "ray")),
            "num_workers": 8,
            "overrides": [],
            "until": [],
            "host": "somewhere-else",
            "machine": "another-machine",
            "pid": 1234,
            "pid_started": 1,
            "started_at": started.isoformat(timespec="seconds"),
            "status": status,
        }
        if status != "running":
            ended = started + timedelta(seconds=seconds)
            record |= {"ended_at": ended.isoformat(timespec="seconds"), "seconds": seconds}
        if status == "failed":
            record["error"] = chance.choice(_ERRORS)
        directory = Path(root, "runs", run_id)
        directory.mkdir(parents=True)
        (directory / "run.json").write_text(json.dumps(record, indent=1, sort_keys=True))
        if status == "running":
            old = (started + timedelta(minutes=1)).timestamp()
            import os

            os.utime(directory / "run.json", (old, old))
        if with_events:
            (directory / "events.jsonl").write_text(_events(chance, status, seconds))
        made.append(run_id)
    return made


def _events(chance: random.Random, status: str, seconds: float) -> str:
    planned = [
        {
            "name": name,
            "inputs": _INPUTS[name],
            "will_run": status != "nothing_to_do",
            "reason": "its input changed: ingest"
            if status != "nothing_to_do"
            else "inputs, configuration and code are unchanged",
            "estimated_seconds": round(seconds / 11, 1),
        }
        for name in _STEPS
    ]
    lines = [{"at_seconds": 0.01, "kind": "planned", "step": "", "steps": planned}]
    samples, at = 100_000, 0.02
    last = len(_STEPS) if status in ("done", "nothing_to_do") else chance.randrange(1, len(_STEPS))
    for name in _STEPS[:last]:
        if status == "nothing_to_do":
            lines.append({"at_seconds": at, "kind": "step_skipped", "step": name, "url": ""})
            continue
        lines.append(
            {
                "at_seconds": round(at, 3),
                "kind": "step_started",
                "step": name,
                "num_tasks": 40,
                "num_resumed": 0,
            }
        )
        lines += [
            {
                "at_seconds": round(at + seconds / 11 * done / 40, 3),
                "kind": "task_finished",
                "step": name,
                "done": done,
                "total": 40,
                "task": f"part-{done:06d}",
            }
            for done in (1, 10, 20, 30, 40)
        ]
        at += seconds / 11
        dropped = chance.randrange(2000) if name in ("clean", "dedup") else 0
        counts = {
            "found": samples,
            "kept": samples - dropped,
            "dropped": {"image_too_small": dropped} if dropped else {},
            "quarantined": {},
        }
        samples -= dropped
        if name in ("scan", "train", "register"):
            counts = {"found": 0, "kept": 0, "dropped": {}, "quarantined": {}}
        if name == _STEPS[last - 1] and status not in ("done", "nothing_to_do"):
            break
        lines.append(
            {
                "at_seconds": round(at, 3),
                "kind": "step_finished",
                "step": name,
                "seconds": round(seconds / 11, 3),
                "counts": counts,
                "url": "",
            }
        )
    return "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in lines)


if __name__ == "__main__":
    make_runs(sys.argv[1], int(sys.argv[2]))
