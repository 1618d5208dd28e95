"""`mm run` and `mm plan`: only what is not done yet, and why."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from command import Made, Mm
from corpus import NUM_FOUND, write_corpus, write_recipe, write_sample

from mmcore.core.runs import list_runs

STEPS = ["scan", "ingest", "clean", "dedup", "split", "tokenizer", "encode", "shard"]
RUN_KEYS = {
    "schema", "status", "steps", "dataset", "dataset_url", "contents", "model", "decision", "metrics",
    "report",
}  # fmt: skip


def snapshot(root: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(root.rglob("*"))}


def test_a_run_makes_a_dataset_and_says_so_as_json(made: Made) -> None:
    said = made.first_run.json()
    assert said.keys() == RUN_KEYS
    assert (said["schema"], said["status"], said["model"]) == ("mm.run/1", "done", None)
    assert [step["name"] for step in said["steps"]] == STEPS
    assert all(step["ran"] and step["seconds"] >= 0 for step in said["steps"])
    assert said["dataset"] == "tiny/" + said["dataset_url"].rsplit("/", 1)[-1]
    assert Path(said["dataset_url"]).parent == made.root / "ds" / "tiny"


def test_words_go_to_stderr_and_say_what_became_of_the_samples(made: Made) -> None:
    err = made.first_run.err
    assert "clean: done in " in err
    assert f"{NUM_FOUND} in; 25 kept; dropped: image_too_small 1; quarantined: " in err
    assert "dedup: done" in err
    assert "dropped: exact_duplicate 1" in err


def test_a_second_run_runs_no_step_writes_nothing_and_exits_with_4(mm: Mm, made: Made) -> None:
    before = snapshot(made.root)
    said = mm("run", made.recipe, "--root", str(made.root), "--json")
    assert said.code == 4
    assert snapshot(made.root) == before
    value = said.json()
    assert value.keys() == RUN_KEYS
    assert value["status"] == "nothing_to_do"
    assert [(step["name"], step["ran"]) for step in value["steps"]] == [
        (name, False) for name in STEPS
    ]
    assert value["dataset"] == made.first_run.json()["dataset"]
    in_words = mm("run", made.recipe, "--root", str(made.root))
    assert "nothing to do: 8 steps are there, and no file, setting or code changed" in in_words.err
    assert in_words.out.startswith(f"dataset   {value['dataset']}")


def test_a_run_that_has_nothing_to_do_loads_nothing_heavy(made: Made) -> None:
    heavy = "{'torch', 'ray', 'prefect', 'mlflow', 'deepspeed', 'transformers', 'rich.progress'}"
    program = (
        "import sys; from mmcore.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as exit: assert exit.code == 4, exit.code\n"
        f"found = {heavy} & sys.modules.keys(); assert not found, found"
    )
    command = [sys.executable, "-c", program, "run", made.recipe, "--root", str(made.root)]
    subprocess.run(command, check=True, capture_output=True)


def test_mm_root_names_the_root(made: Made) -> None:
    command = [sys.executable, "-m", "mmcore", "run", made.recipe]
    environment = os.environ | {"MM_ROOT": str(made.root)}
    assert (
        subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 4
    )


def test_plan_says_that_there_is_nothing_to_do(mm: Mm, made: Made) -> None:
    said = mm("plan", made.recipe, "--root", str(made.root))
    assert said.code == 0
    assert len(said.out.splitlines()) == len(STEPS)
    assert all(line.startswith("keep") for line in said.out.splitlines())
    assert said.err == "nothing to do\n"


def test_plan_shows_what_would_run_why_and_the_cost_and_does_none_of_it(mm: Mm, made: Made) -> None:
    before = snapshot(made.root)
    arguments = [
        "plan",
        made.recipe,
        "--root",
        str(made.root),
        "--set",
        "encode.encode_image.side=16",
    ]
    said = mm(*arguments, "--json").json()
    assert snapshot(made.root) == before
    assert said.keys() == {"schema", "steps", "num_source_files"}
    assert said["num_source_files"] == 3 * NUM_FOUND
    to_run = [step for step in said["steps"] if step["will_run"]]
    # clean has the picture in hand, and works ahead
    assert [step["name"] for step in to_run] == [
        "clean",
        "dedup",
        "split",
        "tokenizer",
        "encode",
        "shard",
    ]
    assert to_run[0]["reason"] == "EncodeImage.side (ahead): 32 -> 16"
    assert to_run[-1]["reason"] == "input changed: encode"
    assert all(step["estimated_seconds"] is not None for step in to_run)
    assert to_run[0].keys() == {
        "name", "will_run", "reason", "fingerprint", "url", "estimated_seconds",
    }  # fmt: skip
    assert "6 of 8 steps would run" in mm(*arguments).err


def test_until_stops_after_a_step_and_refuses_one_that_is_not_there(
    mm: Mm, made: Made, tmp_path: Path
) -> None:
    arguments = ["run", made.recipe, "--root", str(tmp_path), "--workers", "1", "--until"]
    said = mm(*arguments, "ingest", "--json")
    assert [step["name"] for step in said.json()["steps"]] == ["scan", "ingest"]
    said = mm(*arguments, "shards")
    assert said.code == 2
    assert "tiny has no step 'shards'" in said.err


def test_new_data_runs_again_and_old_data_is_known(mm: Mm, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = str(write_recipe(tmp_path / "tiny.yaml", corpus))
    arguments = ["--root", str(tmp_path / "root"), "--workers", "1"]
    assert mm("run", recipe, *arguments, "--until", "ingest").code == 0
    write_sample(corpus / "blue" / "new", 200)
    said = mm("plan", recipe, *arguments[:2], "--until", "ingest")
    assert "source changed: 3 files new, 0 changed, 0 removed" in said.out
    said = mm("run", recipe, *arguments, "--until", "ingest", "--json")
    assert "ingest: done" in said.err
    assert f"{NUM_FOUND + 1} in; {NUM_FOUND + 1} kept" in said.err


def test_a_run_leaves_a_record_of_what_it_did(mm: Mm, made: Made) -> None:
    first = list_runs(str(made.root))[-1]
    assert (first["status"], first["name"], first["executor"]) == ("done", "tiny", "local")
    lines = (made.root / "runs" / first["run_id"] / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["step"] for event in events if event["kind"] == "step_finished"] == STEPS
    seconds = [event["at_seconds"] for event in events]
    assert seconds == sorted(seconds)


def test_a_failed_run_is_one_message_exit_code_1_and_a_record(mm: Mm, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = str(write_recipe(tmp_path / "tiny.yaml", corpus))
    root = str(tmp_path / "root")
    said = mm("run", recipe, "--root", root, "--workers", "1", "--set", "max_quarantined=0")
    assert said.code == 1
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith("mm: clean: 1 of 27 samples are broken")
    assert "Traceback" not in said.err
    record = list_runs(root)[0]
    assert record["status"] == "failed"
    assert "1 of 27 samples are broken" in record["error"]


def test_a_wrong_recipe_exits_with_2_and_leaves_no_trace(
    mm: Mm, made: Made, tmp_path: Path
) -> None:
    said = mm("run", made.recipe, "--root", str(tmp_path / "root"), "--set", "clean.min_sid={}")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("mm: --set: clean.min_sid: no stage of that name.")
    assert not (tmp_path / "root").exists()


def test_a_missing_corpus_exits_with_2_and_says_how_to_get_it(
    mm: Mm, made: Made, tmp_path: Path
) -> None:
    overrides = [
        "--set",
        f"source.path={tmp_path / 'none'}",
        "--set",
        "source.hint=Ask the archive.",
    ]
    said = mm("run", made.recipe, "--root", str(tmp_path / "root"), *overrides)
    assert said.code == 2
    assert "no file below" in said.err
    assert "Ask the archive." in said.err


def test_a_wrong_executor_or_option_exits_with_2(mm: Mm, made: Made, tmp_path: Path) -> None:
    root = str(tmp_path / "root")
    said = mm("run", made.recipe, "--root", root, "--executor", "dask")
    assert said.code == 2
    assert "Use local or ray" in said.err
    assert mm("run", made.recipe, "--rot", root).code == 2
    assert mm("run").code == 2
    assert mm("run", made.recipe, "--root", root, "--workers", "0").code == 2


def test_an_interrupted_run_says_so_keeps_what_is_done_and_goes_on(mm: Mm, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe = str(write_recipe(tmp_path / "tiny.yaml", corpus))
    root = str(tmp_path / "root")
    command = [sys.executable, "-m", "mmcore", "run", recipe, "--root", root, "--workers", "1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, preexec_fn=_hear_interrupts
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("ingest: done"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.endswith("mm: interrupted. What is done is kept; run again to go on.\n")
    assert list_runs(root)[0]["status"] == "interrupted"
    again = mm("run", recipe, "--root", root, "--workers", "1", "--json").json()
    ran = {step["name"]: step["ran"] for step in again["steps"]}
    assert not ran["ingest"]
    assert ran["shard"]


def _hear_interrupts() -> None:
    """A shell starts its background jobs deaf to Ctrl-C, and this suite may be one of them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
