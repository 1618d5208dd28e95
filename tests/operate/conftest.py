import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import Fakes, fake

from mmcore.errors import MmError
from mmcore.operate import lifecycle
from mmcore.operate.service import Service
from mmcore.operate.tokens import ensure_token


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    """A root whose services are stopped when the test is over."""
    path = str(tmp_path / "root")
    ensure_token(path)
    yield path
    with contextlib.suppress(MmError):
        lifecycle.stop(path)


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    """Make services whose directories are `tmp_path/NAME`; the last one may need others."""

    def make(*names: str, after: tuple[str, ...] = ()) -> list[Service]:
        last = names[-1]
        return [fake(name, tmp_path / name, after=after if name == last else ()) for name in names]

    return make
