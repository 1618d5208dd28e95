"""`mm` in this process, with its two streams apart."""

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmcore.__main__ import main


@dataclass(frozen=True)
class Said:
    """What `mm` came to."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Mm = Callable[..., Said]


def run_mm(*arguments: str) -> Said:
    out, err = io.StringIO(), io.StringIO()
    code: str | int | None = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Said(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Made:
    """A corpus that `mm run` has turned into a dataset."""

    recipe: str
    corpus: Path
    root: Path
    first_run: Said
