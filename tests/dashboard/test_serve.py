import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mmcore.core.run_log import RunLog
from mmcore.dashboard.serve import make_settings, serve
from mmcore.errors import ConfigError


@contextmanager
def served(root: Path, *options: str) -> Iterator[tuple["subprocess.Popen[bytes]", str, Path]]:
    """`mm dashboard` in a process of its own; yields it, its address and what it says."""
    said = root.parent / "said.txt"
    command = [sys.executable, "-m", "mmcore", "dashboard", "--root", str(root), "--port", "0"]
    with said.open("wb") as file:
        process = subprocess.Popen([*command, *options], stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + 60
        while "http://" not in said.read_text() and time.monotonic() < deadline:
            assert process.poll() is None, said.read_text()
            time.sleep(0.05)
        address = next(word for word in said.read_text().split() if word.startswith("http://"))
        yield process, address, said
    finally:
        process.kill()
        process.wait()


def test_dashboard_makes_a_token_that_only_its_owner_reads_and_never_says_it(root: Path) -> None:
    with served(root) as (_, address, said):
        token_file = root / "services" / "token"
        token = token_file.read_text().strip()
        assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
        assert httpx.get(f"{address}healthz").text == "ok\n"
        assert httpx.get(f"{address}api/runs").status_code == 401
        bearer = {"authorization": f"Bearer {token}"}
        assert httpx.get(f"{address}api/runs", headers=bearer).status_code == 200
        answer = httpx.get(f"{address}login", params={"token": token})
        assert answer.status_code == 303
        assert token not in said.read_text()
        command_line = subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True)
        assert token.encode() not in command_line.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_dashboard_ends_soon_though_a_page_follows_a_run(root: Path, number: int) -> None:
    log = RunLog(str(root), recipe="x.yaml", name="x", executor="local")
    with served(root) as (process, address, said):
        token = (root / "services" / "token").read_text().strip()
        bearer = {"authorization": f"Bearer {token}"}
        with httpx.stream("GET", f"{address}runs/{log.run_id}/live", headers=bearer) as stream:
            next(stream.iter_text())
            process.send_signal(number)
            process.wait(timeout=15)
        assert "Traceback" not in said.read_text()


def test_port_that_is_taken_is_said_with_a_remedy(root: Path) -> None:
    with served(root) as (_, address, _said):
        port = int(address.rstrip("/").rpartition(":")[2])
        with pytest.raises(ConfigError, match="Choose another with --port"):
            serve(str(root), port=port)


def test_address_that_others_reach_needs_the_names_it_is_asked_by(root: Path) -> None:
    with pytest.raises(ConfigError, match="--allow-host"):
        serve(str(root), host="0.0.0.0", port=0)


def test_bucket_is_no_place_for_the_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--token-file"):
        make_settings("s3://bucket/root")
    (tmp_path / "token").write_text("correct-horse-battery\n")
    settings = make_settings("s3://bucket/root", token_file=str(tmp_path / "token"))
    assert settings.token == "correct-horse-battery"
    assert not settings.index_path.startswith("s3:")
