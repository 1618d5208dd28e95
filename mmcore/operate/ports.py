"""The ports of the local services: which ones, whether they are free, and who holds them."""

import socket
from collections.abc import Iterable, Mapping

from mmcore.errors import ConfigError

LOOPBACK = "127.0.0.1"
DEFAULT_BASE = 7600
NAMES = ("dashboard", "prefect", "mlflow", "ray", "ray-agent", "ray-client")
"""In the order of their ports, from the base on."""
_MIN, _MAX = 1024, 65535
_NUM_BASES_TRIED = 50


def assign(base: int = DEFAULT_BASE, chosen: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the port of each name: the base and those after it, unless chosen; ConfigError."""
    chosen = chosen or {}
    for name in chosen:
        if name not in NAMES:
            raise ConfigError(f"no service has a port named {name!r}. Use: {', '.join(NAMES)}")
    ports = {name: chosen.get(name, base + index) for index, name in enumerate(NAMES)}
    for name, port in ports.items():
        if not _MIN <= port <= _MAX:
            raise ConfigError(f"port {port} of {name} is not between {_MIN} and {_MAX}.")
        twins = [other for other in ports if ports[other] == port]
        if len(twins) > 1:
            raise ConfigError(f"{' and '.join(twins)} cannot share port {port}. Choose another.")
    return ports


def require_free(ports: Mapping[str, int]) -> None:
    """Raise a ConfigError that says which ports are taken, who holds them and what to do."""
    taken = {name: port for name, port in ports.items() if not is_free(port)}
    if not taken:
        return
    said = "\n".join(
        f"  port {port} of {name} is held by {holder_of(port)}" for name, port in taken.items()
    )
    elsewhere = free_base()
    remedy = f", or use other ports: mm up --port-base {elsewhere}" if elsewhere else ""
    raise ConfigError(f"nothing was started, since ports are taken:\n{said}\nStop them{remedy}")


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of loopback."""
    with socket.socket() as probe:
        # what closed a moment ago does not count; who listens does, on whichever interface
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_base() -> int | None:
    """Return a base from which all ports are free."""
    candidates = range(DEFAULT_BASE + 100, DEFAULT_BASE + 100 * _NUM_BASES_TRIED, 100)
    return next((base for base in candidates if _all_free(assign(base).values())), None)


def holder_of(port: int) -> str:
    """Return who listens on a port, in words: name, number and owner, as far as we may know."""
    import psutil  # an extra, and to stop services has to work without it

    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr.port == port
                and connection.pid is not None
            ):
                process = psutil.Process(connection.pid)
                words = " ".join(process.cmdline()[:3])
                return f"pid {process.pid} of {process.username()}: {words or process.name()}"
    except psutil.Error:
        pass
    return "a process that only its owner can see (try: sudo ss -ltnp)"


def _all_free(ports: Iterable[int]) -> bool:
    return all(is_free(port) for port in ports)
