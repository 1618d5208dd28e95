"""Runs one subcommand, and turns errors into one message and an exit code."""

import importlib
import sys

import typer

from mmcore.cli.commands import COMMANDS
from mmcore.errors import MmError

INTERRUPTED = 130


def dispatch(name: str, arguments: list[str]) -> int:
    """Run a subcommand and return its exit code."""
    app: typer.Typer = importlib.import_module(COMMANDS[name].module).app
    try:
        # typer answers Ctrl-C with the exit code 130
        code = app(args=arguments, prog_name=f"mm {name}", standalone_mode=False)
        if code == INTERRUPTED:
            print("mm: interrupted. What is done is kept; run again to go on.", file=sys.stderr)
        return code if isinstance(code, int) else 0
    except typer.TyperException as error:
        print(f"mm: {error.format_message()} See: mm {name} --help", file=sys.stderr)
        return error.exit_code
    except MmError as error:
        print(f"mm: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 1


def new_app() -> typer.Typer:
    """Return a Typer application in the manner of this command."""
    return typer.Typer(
        add_completion=False,
        no_args_is_help=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
