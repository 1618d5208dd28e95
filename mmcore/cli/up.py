"""`mm up`: start the services."""

import os
from typing import Annotated
from urllib.parse import urlsplit

import typer

from mmcore import storage
from mmcore.cli.dispatch import new_app
from mmcore.cli.options import DEFAULT_ROOT, NOTHING_TO_DO, AsJson, Root, print_json, say
from mmcore.cli.status import table, to_json
from mmcore.errors import ConfigError
from mmcore.operate import lifecycle, ports
from mmcore.operate.connection import connect, running_services, token_file
from mmcore.operate.services import Settings, elsewhere, local_services
from mmcore.operate.tokens import ensure_token

app = new_app()
_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg")


@app.command()
def up(
    root: Root = DEFAULT_ROOT,
    port_base: Annotated[
        int, typer.Option(metavar="N", help="First port; the others follow it")
    ] = ports.DEFAULT_BASE,
    port: Annotated[
        list[str],
        typer.Option(metavar="NAME=N", help=f"One port, may be repeated: {', '.join(ports.NAMES)}"),
    ] = [],  # noqa: B006 - typer copies it
    service: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            help="Start this one only, may be repeated: "
            "prefect, ray, mlflow, worker, watch, dashboard",
        ),
    ] = [],  # noqa: B006
    postgres: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Prefect's database, postgresql://HOST/NAME; default: SQLite below the root. "
            "With a password in it, set MM_DATABASE_URL instead",
        ),
    ] = "",
    as_json: AsJson = False,
) -> int:
    """Start Prefect, a worker, Ray, MLflow and the dashboard, and wait until all are well.

    Each listens on this machine alone and asks for the token in ROOT/services/token, made with the
    first start. All log to ROOT/services/logs; what fails is started anew. A server that
    PREFECT_API_URL, RAY_ADDRESS or MLFLOW_TRACKING_URI names takes the place of ours.

    Stop them with: mm down. Exit code 4: they run already.
    """
    if not storage.is_local(root):
        raise ConfigError(
            f"mm up keeps its databases below the root, and {root} is no directory of this "
            "machine. Use one that is: mm up --root .mm"
        )
    root = os.path.abspath(root)
    assigned = ports.assign(port_base, _chosen(port))
    database_url = _database_url(postgres)
    if running_services(root) is not None:
        return _already_up(root, as_json=as_json)
    settings = Settings(
        root=root, token=ensure_token(root), ports=assigned, database_url=database_url
    )
    for name, url in elsewhere().items():
        say(f"  {name:<10} yours at {urlsplit(url).hostname or url}, so not started here")
    services = local_services(settings, only=tuple(service))
    try:
        lifecycle.start(services, root=root, assigned=assigned, say=say)
    except lifecycle.AlreadyUpError as error:
        say(f"mm: {error}")
        return NOTHING_TO_DO
    _conclude("up", root, as_json=as_json)
    return 0


def _already_up(root: str, *, as_json: bool) -> int:
    found = lifecycle.status(root)
    if all(one.is_well for one in found):
        say("nothing to do: all services run and are well")
        _conclude("already_up", root, as_json=as_json)
        return NOTHING_TO_DO
    say("the services run already, and not all are well. See: mm status; or: mm down, mm up")
    if as_json:
        print_json("up", {"status": "not_well", "services": to_json(found)})
    else:
        print("\n".join(table(found)))
    return 1


def _conclude(status: str, root: str, *, as_json: bool) -> None:
    """Say the one page to open, how to stop, and what comes next."""
    there = connect(root)
    login = f"{there.dashboard_url}/login?token={there.token}" if there.dashboard_url else None
    if as_json:
        services = to_json(lifecycle.status(root))
        print_json("up", {"status": status, "open": login, "services": services})
        return
    if login:
        print(f"open     {login}")
    if there.mlflow_url or there.prefect_url:
        print(f"token    {token_file(root)}  (user mm, for the pages of Prefect and MLflow)")
    print(f"logs     {os.path.dirname(token_file(root))}/logs   how they are: mm status")
    print("next     mm deploy configs/deployments/stamps.yaml   stop: mm down")


def _chosen(options: list[str]) -> dict[str, int]:
    chosen = {}
    for option in options:
        name, _, number = option.partition("=")
        if not number.isdigit():
            raise ConfigError(f"--port {option} is not NAME=N, for example: --port dashboard=8080")
        chosen[name] = int(number)
    return chosen


def _database_url(option: str) -> str | None:
    """Return the address of a PostgreSQL as Prefect wants it; ConfigError when it is none."""
    if urlsplit(option).password:
        raise ConfigError(
            "--postgres holds a password, which every user of this machine can read in the list "
            "of processes. Set MM_DATABASE_URL to it instead, or keep it in ~/.pgpass."
        )
    url = option or os.environ.get("MM_DATABASE_URL", "")
    if not url:
        return None
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES or not rest:
        raise ConfigError(
            f"the database is named by {scheme or 'nothing'}://, and Prefect takes SQLite (leave "
            "it out) or PostgreSQL: postgresql://USER@HOST:5432/NAME"
        )
    return f"postgresql+asyncpg://{rest}"
