"""`python -m mmcore.dashboard --root ROOT --port N`: what `mm up` and `mm dashboard` start."""

import argparse
import sys

from mmcore.dashboard.serve import serve
from mmcore.errors import MmError


def main(arguments: list[str]) -> int:
    """Serve until a signal; the token comes from a file, for an argument can be seen by others."""
    parser = argparse.ArgumentParser(prog="python -m mmcore.dashboard", description=__doc__)
    parser.add_argument("--root", required=True, help="storage root: path or s3:// URL")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free")
    parser.add_argument("--token-file", default="", help="default: ROOT/services/token")
    parser.add_argument(
        "--allow-host", action="append", default=[], help="a name to answer to, besides loopback"
    )
    options = parser.parse_args(arguments)
    try:
        serve(
            options.root,
            host=options.host,
            port=options.port,
            token_file=options.token_file,
            allowed_hosts=options.allow_host,
        )
    except MmError as error:
        print(f"mm: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
