"""Options that several subcommands share, spelled once."""

import json
import os
import sys
from typing import Annotated, Any

import typer

Recipe = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A recipe, e.g. configs/recipes/x.yaml")
]
Root = Annotated[
    str, typer.Option("--root", envvar="MM_ROOT", help="Storage root: path or s3:// URL")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="A.B=C", help="Override a value; may be repeated")
]
Until = Annotated[
    list[str], typer.Option("--until", metavar="STEP", help="Stop after a step, e.g. shard")
]
Executor = Annotated[
    str, typer.Option(help="Where tasks run: local (this machine) or ray (a cluster)")
]
Workers = Annotated[int, typer.Option(min=1, help="Tasks at a time; default: all cores")]
ALL_CORES = os.cpu_count() or 1
DEFAULT_ROOT = ".mm"
NOTHING_TO_DO = 4


def print_json(schema: str, value: dict[str, Any]) -> None:
    """Print one JSON document that names its schema and version."""
    json.dump({"schema": f"mm.{schema}/1", **value}, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


def say(text: str) -> None:
    """Print words for people, on stderr."""
    print(text, file=sys.stderr, flush=True)
