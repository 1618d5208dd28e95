"""The command `mm`. It starts in the time of a small script: a subcommand is imported when used."""

import sys

from mmcore import __version__
from mmcore.cli.commands import COMMANDS, EXIT_CODES, PURPOSE


def main(arguments: list[str] | None = None) -> None:
    """Run `mm` with the given arguments, or those of the process, and exit."""
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    if name in ("--help", "-h", "help"):
        print(help_text())
    elif name in ("--version", "-V"):
        print(f"mm {__version__}")
    elif name in COMMANDS:
        from mmcore.cli.dispatch import dispatch

        sys.exit(dispatch(name, arguments[1:]))
    else:
        from mmcore.config import suggest

        print(f"mm: no command {name!r}.{suggest(name, list(COMMANDS))}", file=sys.stderr)
        sys.exit(2)


def help_text() -> str:
    """Return what `mm --help` prints."""
    width = max(map(len, COMMANDS)) + 2
    lines = [
        f"Usage: mm COMMAND [OPTIONS]   (mm COMMAND --help for each)\n\n{PURPOSE}\n\nCommands:"
    ]
    lines += [f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()]
    codes = ", ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    return "\n".join([*lines, "", f"Storage root: MM_ROOT (default .mm).\nExit codes: {codes}."])


if __name__ == "__main__":
    main()
