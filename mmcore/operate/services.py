"""What `mm up` starts on this machine, and how each is kept to itself.

Every service listens on loopback alone and asks for the one token of the root. Secrets reach a
service by its environment, which its owner alone can read, never by its command line.
"""

import base64
import hashlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

from mmcore import storage
from mmcore.errors import ConfigError, MissingExtra
from mmcore.operate.connection import USER, services_directory, token_file
from mmcore.operate.ports import LOOPBACK
from mmcore.operate.service import WORK_POOL, Check, Service

OWNED_BY = "MM_SERVICES_OF"
"""Every process of the services of a root has this in its environment, with the root."""
_OBJECT_STORE_BYTES = 100 * 2**20  # metadata alone goes through it
_MIGRATION_SECONDS = 180.0  # a first start makes a database, on a busy machine
_ALL_CORES = os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `mm up` was told."""

    root: str
    """Absolute, on a disk of this machine."""
    token: str = field(repr=False)
    ports: Mapping[str, int]
    database_url: str | None = field(default=None, repr=False)
    """A PostgreSQL for Prefect; None: SQLite below the root."""
    cwd: str = "."
    """Where flows start."""


def local_services(settings: Settings, *, only: tuple[str, ...] = ()) -> list[Service]:
    """Return the services of a root in the order of their start.

    One for which the environment names a server of the team's own (PREFECT_API_URL, RAY_ADDRESS,
    MLFLOW_TRACKING_URI) is left out.
    """
    builders: dict[str, Callable[[Settings], Service]] = {
        "prefect": _prefect,
        "ray": _ray,
        "mlflow": _mlflow,
        "worker": _worker,
        "watch": _watch,
        "dashboard": _dashboard,
    }
    for name in only:
        if name not in builders:
            raise ConfigError(f"no service is named {name!r}. There are: {', '.join(builders)}")
    wanted = [name for name in builders if name not in elsewhere() and (not only or name in only)]
    _require("psutil", "operate")
    services = [builders[name](settings) for name in wanted]
    return [_without_absent(service, frozenset(wanted)) for service in services]


def elsewhere() -> dict[str, str]:
    """Return the services for which the environment names another server, and where it is."""
    tracking = os.environ.get("MLFLOW_TRACKING_URI", "")
    named = {
        "prefect": os.environ.get("PREFECT_API_URL", ""),
        "ray": os.environ.get("RAY_ADDRESS", ""),
        "mlflow": tracking if tracking.startswith("http") else "",
    }
    return {name: url for name, url in named.items() if url}


def base_environment(root: str) -> dict[str, str]:
    """Return the environment that all services share: ours, without what would lead them astray."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_SERVER_", "PREFECT_CLIENT_", "MLFLOW_AUTH_"))
        and name not in ("PREFECT_API_KEY", "PREFECT_PROFILE", "PREFECT_HOME", "MM_DATABASE_URL")
    }
    return ours | {
        OWNED_BY: os.path.abspath(root),
        "MM_ROOT": root,
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }


def forget_ray_sessions(root: str) -> None:
    """Delete what Ray's earlier starts have written: sockets and logs."""
    home = _ray_home(root)
    for name in storage.list_directories(home):
        shutil.rmtree(os.path.join(home, name), ignore_errors=True)


def remove_ray_link(root: str) -> None:
    """Remove the short name of Ray's directory, which lies outside the root."""
    link = _link_to(_ray_home(root))
    if os.path.islink(link) and os.lstat(link).st_uid == os.getuid():
        os.unlink(link)


def _prefect(settings: Settings) -> Service:
    _require("prefect", "flows")
    port = settings.ports["prefect"]
    url = f"http://{LOOPBACK}:{port}"
    environment = {
        "PREFECT_HOME": _home(settings),
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{settings.token}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_ENABLED": "true",
        "PREFECT_UI_API_URL": f"{url}/api",
    }
    if settings.database_url:
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = settings.database_url
    command = _python("prefect", "server", "start", "--host", LOOPBACK, "--port", str(port))
    return Service(
        name="prefect",
        command=command,
        environment=environment,
        check=Check(kind="http", url=f"{url}/api/health"),
        port_names=("prefect",),
        shown={"url": url, "api_url": f"{url}/api", "port": port},
        start_seconds=_MIGRATION_SECONDS,
        first_start="the first start makes its database, which takes 10 to 30 s",
    )


def _worker(settings: Settings) -> Service:
    _require("prefect", "flows")
    own = "prefect" not in elsewhere()
    api = f"http://{LOOPBACK}:{settings.ports['prefect']}/api"
    auth = f"{USER}:{settings.token}" if own else os.environ.get("PREFECT_API_AUTH_STRING", "")
    api = api if own else os.environ["PREFECT_API_URL"]
    name = f"mm-{socket.gethostname()}"
    environment = {
        "PREFECT_HOME": _home(settings),
        "PREFECT_API_URL": api,
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "mmcore",
        # a server that is away must not hold up a flow for minutes
        "PREFECT_CLIENT_MAX_RETRIES": "2",
        **_ray_client_environment(settings),
    }
    command = _python("prefect", "worker", "start", "--pool", WORK_POOL, "--type", "process")
    return Service(
        name="worker",
        command=(*command, "--name", name, "--install-policy", "never"),
        environment={key: value for key, value in environment.items() if value},
        check=Check(kind="worker", url=api, auth=auth, name=name),
        after=("prefect", "ray"),
        shown={"work_pool": WORK_POOL},
        children_survive=True,
    )


def _ray(settings: Settings) -> Service:
    _require("ray", "ray")
    port, agent_port = settings.ports["ray"], settings.ports["ray-agent"]
    command = (
        *_python("ray.scripts.scripts", "start", "--head", "--block"),
        f"--node-ip-address={LOOPBACK}",
        f"--port={port}",
        f"--dashboard-agent-listen-port={agent_port}",
        f"--ray-client-server-port={settings.ports['ray-client']}",
        "--include-dashboard=false",
        "--no-monitor",  # it scales clusters of clouds
        "--disable-usage-stats",
        f"--num-cpus={_ALL_CORES}",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        f"--temp-dir={_short_path(_ray_home(settings.root))}",
        "--log-color=false",
    )
    environment = {
        **_ray_client_environment(settings),
        # figures for Prometheus, which are served to whoever asks
        "RAY_enable_metrics_collection": "0",
        "DASHBOARD_METRIC_PORT": "-1",
    }
    del environment["RAY_ADDRESS"]  # it is the head
    return Service(
        name="ray",
        command=command,
        environment=environment,
        check=Check(kind="http", url=f"http://{LOOPBACK}:{agent_port}/api/local_raylet_healthz"),
        port_names=("ray", "ray-agent", "ray-client"),
        shown={"address": f"{LOOPBACK}:{port}", "port": port},
    )


def _mlflow(settings: Settings) -> Service:
    _require("mlflow", "registry")
    port = settings.ports["mlflow"]
    url = f"http://{LOOPBACK}:{port}"
    home = os.path.join(services_directory(settings.root), "mlflow")
    # a server of its own for each token: MLflow keeps the password that it was started with first
    users = f"users-{hashlib.sha256(settings.token.encode()).hexdigest()[:8]}.db"
    artifacts = os.path.join(settings.root, "mlartifacts")
    command = _python("mmcore.operate.mlflow_server", settings.root)
    options = ("--host", LOOPBACK, "--port", str(port), "--workers", "1")
    login = ("--app-name", "basic-auth", "--uvicorn-opts", "--log-level warning")
    hosts = f"{LOOPBACK}:{port},localhost:{port}"
    environment = {
        # by the environment, since the address of a database may hold its password
        "MLFLOW_BACKEND_STORE_URI": os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{settings.root}/mlflow.db",
        "MLFLOW_ARTIFACTS_DESTINATION": artifacts,
        "MLFLOW_SERVER_ALLOWED_HOSTS": hosts,
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": url,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_AUTH_CONFIG_PATH": _write_auth_config(home, users),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": settings.token,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _derived(settings.token, "mlflow"),
    }
    return Service(
        name="mlflow",
        command=(*command, *options, *login),
        environment=environment,
        check=Check(kind="http", url=f"{url}/health"),
        port_names=("mlflow",),
        shown={"url": url, "port": port},
        start_seconds=_MIGRATION_SECONDS,
        first_start="the first start makes its databases",
    )


def _dashboard(settings: Settings) -> Service:
    port = settings.ports["dashboard"]
    url = f"http://{LOOPBACK}:{port}"
    command = _python("mmcore.dashboard", "--root", settings.root, "--port", str(port))
    return Service(
        name="dashboard",
        command=command,
        check=Check(kind="http", url=f"{url}/healthz"),
        port_names=("dashboard",),
        shown={"url": url, "port": port},
    )


def _watch(settings: Settings) -> Service:
    """Return what looks for new data and for dead runs; it asks for the deployments each time."""
    return Service(
        name="watch",
        command=_python("mmcore.operate.watch", "--root", settings.root),
        check=Check(kind="process"),
        after=("prefect",),
    )


def _ray_home(root: str) -> str:
    return os.path.join(services_directory(root), "ray")


def _ray_client_environment(settings: Settings) -> dict[str, str]:
    """Return what a process needs to reach the cluster: ours, or the one that is named."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0"}
    if "ray" in elsewhere():
        return quiet | {"RAY_ADDRESS": os.environ["RAY_ADDRESS"]}
    return quiet | {
        "RAY_ADDRESS": f"{LOOPBACK}:{settings.ports['ray']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": token_file(settings.root),
        # else Ray takes loopback for a mistake, and every port of it listens on all interfaces
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def _short_path(directory: str) -> str:
    """Return a short name for a directory that is made: a socket's path has 107 bytes at most."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    link = _link_to(directory)
    try:
        os.symlink(directory, link)
    except FileExistsError:
        found = os.lstat(link)
        if found.st_uid != os.getuid() or os.path.realpath(link) != os.path.realpath(directory):
            raise ConfigError(
                f"{link} is in the way: it should be a link to {directory}. Remove it."
            ) from None
    return link


def _link_to(directory: str) -> str:
    digest = hashlib.sha256(os.fsencode(directory)).hexdigest()[:8]
    return os.path.join(tempfile.gettempdir(), f"mm-ray-{os.getuid()}-{digest}")


def _write_auth_config(home: str, users: str) -> str:
    """Write what MLflow's login reads, which holds no secret; return its path."""
    os.makedirs(home, mode=0o700, exist_ok=True)
    path = os.path.join(home, "auth.ini")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"[mlflow]\ndefault_permission = NO_PERMISSIONS\n"
            f"database_uri = sqlite:///{os.path.join(home, users)}\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
    return path


def _home(settings: Settings) -> str:
    home = os.path.join(services_directory(settings.root), "prefect")
    os.makedirs(home, mode=0o700, exist_ok=True)
    return home


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _derived(token: str, purpose: str) -> str:
    """Return a secret for one purpose, from which the token cannot be told."""
    return base64.b16encode(hashlib.sha256(f"{purpose}:{token}".encode()).digest()).decode()


def _require(module: str, extra: str) -> None:
    if find_spec(module) is None:
        raise MissingExtra(
            f"mm up needs {module}, which is not installed. Install it: pip install 'mmcore[all]' "
            f"(or the extra {extra}), or start the rest alone with --service."
        )


def _without_absent(service: Service, names: frozenset[str]) -> Service:
    """Wait for nobody who is not started here."""
    return replace(service, after=tuple(name for name in service.after if name in names))
