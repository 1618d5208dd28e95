"""The documents hold, and the check of them finds what does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def run_check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "docs" / "check.py")]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The root of a repository with one short document, and what documents may name."""
    for name in DOCUMENTS:
        (tmp_path / name).write_text(f"# {name}\n")
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "docs").mkdir()
    for name in ("check.py", "recipes.md", "operate.md"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs" / name)
    for name in ("architecture.md", "cleaning.md", "growing.md", "training.md"):
        # the headings, to which recipes.md has links
        lines = (ROOT / "docs" / name).read_text().splitlines()
        headings = [line for line in lines if line.startswith("#")]
        (tmp_path / "docs" / name).write_text("\n\n".join(headings) + "\n")
    contributing = "# CONTRIBUTING\n\n## A new filter is two files\n"
    (tmp_path / "CONTRIBUTING.md").write_text(contributing)
    return tmp_path


def test_the_documents_hold() -> None:
    done = run_check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_mistake_is_said_at_once_with_file_and_line(small: Path) -> None:
    (small / "README.md").write_text(
        "# Mistakes\n"
        "[gone](docs/gone.md) and\n"
        "[no anchor](docs/recipes.md#nowhere)\n"
        "\n"
        "`mm rum x.yaml`, `mm run x.yaml --worker 2`, `mm corpus steal x`, `make tset`,\n"
        "`mmcore/core/nothing.py`, `Makefile`\n"
        "\n"
        "```sh\n"
        "make demo\n"
        "MM_ROOT=x mm plan x.yaml --untli shard  # comment\n"
        "```\n"
        "\n"
        "```yaml recipe-part\n"
        "clean: {min_sid: {}}\n"
        "```\n"
        "\n"
        "```yaml\n"
        "a: [1\n"
        "```\n"
        "\n"
        "```python\n"
        "x = 1\n"
        "y = = 2\n"
        "```\n"
        "caf\u00e9\n",
        encoding="utf-8",
    )
    done = run_check(small)
    assert done.returncode == 1
    found = [line.split(": ", 1) for line in done.stdout.splitlines() if line.startswith("README")]
    by_line = dict(found)
    assert "there is no docs/gone.md" in by_line["README.md:2"]
    assert "docs/recipes.md has only" in by_line["README.md:3"]
    on_five = [text for place, text in found if place == "README.md:5"]
    assert on_five == [
        "make tset: the Makefile has no target tset",
        "mm corpus steal x: mm corpus has no command steal",
        "mm rum x.yaml: mm has no such command",
        "mm run x.yaml --worker 2: there is no option --worker",
    ]
    assert by_line["README.md:6"] == "there is no mmcore/core/nothing.py"
    assert by_line["README.md:10"] == "mm plan x.yaml --untli shard: there is no option --untli"
    assert "Did you mean 'min_side'?" in by_line["README.md:14"]
    assert by_line["README.md:18"].startswith("not YAML")
    assert by_line["README.md:23"].startswith("not Python")
    assert by_line["README.md:25"].startswith("not ASCII")
    assert "README.md:9" not in by_line


def test_an_example_whose_test_fails_is_found(small: Path) -> None:
    (small / "README.md").write_text(
        "# Example\n"
        "\n"
        "```python file=mmcore/clean/nothing.py\n"
        '"""Nothing."""\n'
        "\n"
        "ANSWER = 42\n"
        "```\n"
        "\n"
        "```python file=tests/clean/test_nothing.py\n"
        "from mmcore.clean.nothing import ANSWER\n"
        "\n"
        "\n"
        "def test_the_answer_is_41() -> None:\n"
        "    assert ANSWER == 41\n"
        "```\n"
    )
    done = run_check(small)
    assert done.returncode == 1
    assert "README.md:4: the example fails: pytest" in done.stdout
    assert "test_the_answer_is_41" in done.stdout
    (small / "README.md").write_text((small / "README.md").read_text().replace("41", "42"))
    assert run_check(small).returncode == 0


def test_a_short_name_that_the_table_lacks_is_found(small: Path) -> None:
    recipes = small / "docs" / "recipes.md"
    recipes.write_text(recipes.read_text().replace("`silent`", "`quiet`"))
    done = run_check(small)
    assert done.returncode == 1
    assert "docs/recipes.md:1: the short name silent is not in the table" in done.stdout
