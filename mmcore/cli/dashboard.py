"""`mm dashboard`: the web application alone."""

import sys
from typing import Annotated

import typer

from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, Root, say

app = new_app()
_DEFAULT_PORT = 8080


@app.command()
def dashboard(
    root: Root = DEFAULT_ROOT,
    host: Annotated[str, typer.Option(help="Address to listen at")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0: any that is free")
    ] = _DEFAULT_PORT,
    token_file: Annotated[
        str, typer.Option(metavar="PATH", help="Where the token lies; default: ROOT/services/token")
    ] = "",
    allow_host: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="A name to answer to besides loopback; may be repeated"),
    ] = [],  # noqa: B006 - typer copies it
) -> int:
    """Serve the dashboard of a root: runs, samples, models, and why. It needs no other service.

    It listens on this machine alone and asks for a token, which it makes if there is none. Ends
    with Ctrl-C. `mm up` starts it too, beside the services that it can show.
    """
    # Starlette and the server are not needed for --help
    from mmcore.dashboard.serve import serve
    from mmcore.dashboard.settings import Settings

    def announce(address: str, settings: Settings) -> None:
        say(f"dashboard of {settings.root}\n  {address}")
        if token_file:
            say(f"  token: in {token_file}")
        elif sys.stderr.isatty():
            # a person's terminal; a log file never gets the secret
            say(f"  log in with this link:  {address}login?token={settings.token}")
        else:
            say(f"  token: in {settings.root}/services/token")

    serve(
        root,
        host=host,
        port=port,
        token_file=token_file,
        allowed_hosts=allow_host,
        on_start=announce,
    )
    return 0
