"""`mm up`, `mm status` and `mm down` where nothing needs to be started."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import Mm
from fakes import QUICK, fake
from processes import wait_until

from mmcore.operate import lifecycle
from mmcore.operate.tokens import ensure_token

PASSWORD = "geheim-1234"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--postgres", f"postgresql://mm:{PASSWORD}@db/prefect"], "Set MM_DATABASE_URL"),
        (["--postgres", "mysql://db/prefect"], "takes SQLite"),
        (["--port", "dashboard"], "is not NAME=N"),
        (["--port", "grafana=3000"], "no service has a port named 'grafana'"),
        (["--port-base", "80"], "is not between"),
        (["--service", "prefct"], "no service is named 'prefct'"),
        (["--root", "s3://bucket/root"], "is no directory of this machine"),
    ],
)
def test_what_cannot_be_started_is_refused_with_a_remedy(
    mm: Mm, tmp_path: Path, arguments: list[str], said: str
) -> None:
    refused = mm("up", "--root", str(tmp_path / "root"), *arguments)
    assert refused.code == 2
    assert said in refused.err
    assert PASSWORD not in refused.err
    assert not (tmp_path / "root" / "services" / "services.json").exists()


def test_where_nothing_runs_down_has_nothing_to_do_and_status_says_how_to_start(
    mm: Mm, tmp_path: Path
) -> None:
    down = mm("down", "--root", str(tmp_path))
    assert (down.code, down.out) == (4, "")
    assert "nothing to do" in down.err
    status = mm("status", "--root", str(tmp_path))
    assert status.code == 1
    assert "mm up" in status.err
    assert list(tmp_path.iterdir()) == []
    for command, code in (("status", 1), ("down", 4)):
        assert mm(command, "--root", "s3://bucket/root").code == code


def test_status_shows_a_table_and_of_what_failed_the_reason_and_the_end_of_its_log(
    mm: Mm, tmp_path: Path
) -> None:
    root = str(tmp_path / "root")
    ensure_token(root)
    services = [fake(name, tmp_path / name) for name in ("one", "two")]
    assigned = {one.name: one.shown["port"] for one in services}
    lifecycle.start(services, root=root, assigned=assigned, say=lambda _: None, pace=QUICK)
    try:
        well = mm("status", "--root", root)
        assert (well.code, well.err) == (0, "")
        assert [line.split()[:2] for line in well.out.splitlines()[1:]] == [
            ["one", "healthy"],
            ["two", "healthy"],
        ]
        again = mm("up", "--root", root)
        assert again.code == 4
        assert "nothing to do" in again.err
        found = json.loads(mm("status", "--root", root, "--json").out)
        assert found["well"] is True
        (tmp_path / "two" / "broken").touch()
        os.kill(found["services"][1]["pid"], 9)
        wait_until(lambda: lifecycle.status(root)[1].state == "failed", seconds=30, what="given up")
        bad = mm("status", "--root", root)
        assert bad.code == 1
        assert "two is failed: given up after 3 failures" in bad.err
        assert "the database is broken" in bad.err
        refused = mm("up", "--root", root)
        assert refused.code == 1
        assert "not all are well" in refused.err
    finally:
        down = mm("down", "--root", root, "--json")
    assert down.code == 0
    assert json.loads(down.out)["num_processes"] >= 4


def test_the_command_for_status_loads_no_heavy_module() -> None:
    heavy = "{'pydantic', 'pyarrow', 'torch', 'ray', 'prefect', 'numpy', 'mlflow', 'httpx'}"
    program = (
        f"import sys, mmcore.cli.status, mmcore.cli.down, mmcore.cli.up\n"
        f"found = {heavy} & sys.modules.keys(); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
