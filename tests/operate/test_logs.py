"""Logs are bounded, and their ends can be shown."""

import os
from pathlib import Path

from mmcore.operate.logs import last_lines, log_path, open_log, rotate


def test_a_log_is_for_its_owner_and_is_appended_to(tmp_path: Path) -> None:
    for line in (b"one\n", b"two\n"):
        handle = open_log(str(tmp_path), "mlflow")
        os.write(handle, line)
        os.close(handle)
    path = log_path(str(tmp_path), "mlflow")
    assert last_lines(path) == ["one", "two"]
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_log_that_grew_too_large_is_begun_anew_while_it_is_written(tmp_path: Path) -> None:
    handle = open_log(str(tmp_path), "ray")
    path = log_path(str(tmp_path), "ray")
    os.write(handle, b"old\n" * 10)
    rotate(path, max_bytes=40)
    assert last_lines(path) == ["old"] * 10
    os.write(handle, b"one more\n")
    rotate(path, max_bytes=40)
    assert last_lines(path) == []
    assert last_lines(f"{path}.1")[-1] == "one more"
    os.write(handle, b"new\n")
    os.close(handle)
    assert Path(path).read_bytes() == b"new\n"


def test_the_end_of_a_log_is_a_few_whole_lines_even_of_bytes_that_are_no_text(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.log"
    path.write_bytes(b"line\n" * 5000 + b"\xff\n\n")
    assert last_lines(str(path), count=2) == ["line", "\ufffd"]
    assert last_lines(str(tmp_path / "none.log")) == []
    rotate(str(tmp_path / "none.log"))
