"""The secret: made once, for its owner alone."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmcore.errors import ConfigError
from mmcore.operate.connection import read_token
from mmcore.operate.tokens import ensure_token


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)  # the most generous one: nothing may depend on it
    try:
        token = ensure_token(str(tmp_path))
    finally:
        os.umask(before)
    assert len(token) == 64
    assert ensure_token(str(tmp_path)) == token == read_token(str(tmp_path))
    services = tmp_path / "services"
    assert stat.S_IMODE(services.stat().st_mode) == 0o700
    assert [path.name for path in services.iterdir()] == ["token"]
    assert stat.S_IMODE((services / "token").stat().st_mode) == 0o600


def test_all_who_make_a_token_at_once_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(ensure_token, [str(tmp_path)] * 8))
    assert len(tokens) == 1


def test_two_roots_have_two_tokens(tmp_path: Path) -> None:
    assert ensure_token(str(tmp_path / "one")) != ensure_token(str(tmp_path / "two"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_token_that_others_could_read_is_refused(tmp_path: Path, mode: int) -> None:
    ensure_token(str(tmp_path))
    path = tmp_path / "services" / "token"
    path.chmod(mode)
    with pytest.raises(ConfigError, match="readable by others") as refused:
        ensure_token(str(tmp_path))
    assert path.read_text() not in str(refused.value)
    path.unlink()
    assert ensure_token(str(tmp_path))


def test_an_empty_token_is_refused(tmp_path: Path) -> None:
    ensure_token(str(tmp_path))
    (tmp_path / "services" / "token").write_text("")
    with pytest.raises(ConfigError, match="empty"):
        ensure_token(str(tmp_path))


def test_a_directory_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "services").mkdir(mode=0o755)
    ensure_token(str(tmp_path))
    assert stat.S_IMODE((tmp_path / "services").stat().st_mode) == 0o700
