"""The other subcommands of `mm`, and `mm` itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from command import Made, Mm

from mmcore.cli.commands import COMMANDS


def test_help_names_every_command_and_every_exit_code(mm: Mm) -> None:
    said = mm("--help")
    assert (said.code, said.err) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in said.out
    assert "2 bad config" in said.out
    assert mm().out == said.out


def test_help_loads_no_heavy_module() -> None:
    heavy = (
        "{'pydantic', 'typer', 'click', 'pyarrow', 'torch', 'ray', 'prefect', 'numpy', 'mlflow', "
        "'ruamel', 'fsspec', 'rich'}"
    )
    program = (
        "import sys; from mmcore.__main__ import main; main(['--help'])\n"
        f"found = {heavy} & sys.modules.keys(); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_an_unknown_command_is_answered_with_the_one_that_was_meant(mm: Mm) -> None:
    said = mm("verfy")
    assert (said.code, said.out) == (2, "")
    assert said.err == "mm: no command 'verfy'. Did you mean 'verify'?\n"


def test_every_command_has_help_of_its_own(mm: Mm) -> None:
    for name in COMMANDS:
        said = mm(name, "--help")
        assert said.code == 0, said.err
        assert f"mm {name}" in said.out


def test_the_version_is_said(mm: Mm) -> None:
    assert mm("--version").out.startswith("mm 0.")


def test_datasets_lists_what_there_is(mm: Mm, made: Made, tmp_path: Path) -> None:
    (row,) = mm("datasets", "--root", str(made.root), "--json").json()["datasets"]
    assert row["dataset"] == made.first_run.json()["dataset"]
    assert sum(row["num_samples"].values()) == 24
    assert row["labels"] == {"blue": 12, "red": 12}
    said = mm("datasets", "--root", str(made.root))
    assert said.out.startswith(row["dataset"])
    assert said.err == ""
    empty = mm("datasets", "--root", str(tmp_path))
    assert (empty.code, empty.out) == (0, "")
    assert "no dataset below" in empty.err


def test_verify_finds_every_byte_as_it_was_written(mm: Mm, made: Made) -> None:
    said = mm("verify", "--root", str(made.root))
    assert said.code == 0
    assert said.err == "9 artifacts hold what their manifests say\n"
    assert all(line.startswith("ok ") for line in said.out.splitlines())


def test_verify_names_the_file_with_a_flipped_byte_and_the_one_that_is_gone(
    mm: Mm, made: Made, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(made.root, root)
    tar, other = sorted(root.rglob("ds/**/train-*.tar"))[:2]
    data = bytearray(tar.read_bytes())
    data[700] ^= 1
    tar.write_bytes(data)
    other.unlink()
    said = mm("verify", "--root", str(root))
    assert said.code == 1
    assert f"train/{tar.name}: SHA-256 differs from the manifest" in said.out
    assert f"train/{other.name}: missing" in said.out
    assert "1 of 9 artifacts are damaged" in said.err
    value = mm("verify", "tiny", "--root", str(root), "--json").json()
    assert value["num_bad"] == 1
    assert value["artifacts"][0]["problems"] == [
        f"train/{tar.name}: SHA-256 differs from the manifest", f"train/{other.name}: missing",
    ]  # fmt: skip


def test_config_show_says_each_value_and_where_it_comes_from(mm: Mm, made: Made) -> None:
    said = mm("config", "show", made.recipe, "--origin", "--set", "shard.samples_per_shard=9")
    assert said.code == 0
    lines = {line.split(":")[0]: line for line in said.out.splitlines()}
    assert lines["seed"].endswith(f"# {made.recipe}:2:1")
    assert lines["shard.samples_per_shard"].startswith("shard.samples_per_shard: 9 ")
    assert lines["shard.samples_per_shard"].endswith("# --set")
    assert lines["clean.min_side.min_side"].startswith("clean.min_side.min_side: 16 ")
    assert lines["clean.decode_image.max_side"].endswith("# default")
    assert lines["split.fractions.train"].startswith("split.fractions.train: 0.7 ")
    value = mm("config", "show", made.recipe, "--origin", "--json").json()
    assert value["values"]["encode.encode_image.side"] == 32
    assert value["origins"]["encode.encode_image.side"].startswith(f"{made.recipe}:19:")


def test_config_show_fills_in_the_defaults_of_every_section(mm: Mm, made: Made) -> None:
    values = mm("config", "show", made.recipe, "--json").json()["values"]
    assert values["tokenizer.min_frequency"] == 2
    assert values["shard.max_shard_bytes"] == 256 * 2**20


def test_config_schema_is_json(mm: Mm) -> None:
    said = mm("config", "schema")
    assert said.code == 0
    schema = json.loads(said.out)
    assert {"name", "source", "split", "clean", "train"} <= schema["properties"].keys()


def test_corpus_make_gives_the_same_bytes_for_the_same_seed(mm: Mm, tmp_path: Path) -> None:
    for name in ("one", "two"):
        said = mm("corpus", "make", str(tmp_path / name), "--samples", "12", "--seed", "5")
        assert (said.code, said.out) == (0, "")
        assert said.err
    files = [
        {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}
        for top in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1]
    assert len(files[0]) > 12


def test_corpus_fetch_of_something_else_is_refused(mm: Mm, tmp_path: Path) -> None:
    said = mm("corpus", "fetch", "laion", str(tmp_path / "x"))
    assert said.code == 2
    assert "There is: stamps" in said.err


def test_doctor_finds_this_machine_fit_or_says_what_to_do(mm: Mm, tmp_path: Path) -> None:
    said = mm("doctor", "--root", str(tmp_path / "root"), "--json")
    findings = {finding["what"]: finding for finding in said.json()["findings"]}
    assert findings["storage root"]["ok"]
    assert "create-only holds" in findings["storage root"]["found"]
    assert findings["pyarrow"]["ok"]
    assert all(finding["ok"] or finding["remedy"] for finding in findings.values())
    assert said.code == (0 if all(finding["ok"] for finding in findings.values()) else 1)
    assert not list((tmp_path / "root").rglob("doctor-*"))


def test_doctor_says_when_the_root_cannot_be_written(mm: Mm, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said = mm("doctor", "--root", str(tmp_path / "file" / "root"))
    assert said.code == 1
    assert "BAD  storage root" in said.out


def test_mm_is_a_command_of_the_shell(made: Made) -> None:
    command = [str(Path(sys.executable).parent / "mm"), "datasets", "--root", str(made.root)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.startswith("tiny/")
