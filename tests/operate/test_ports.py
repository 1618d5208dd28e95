"""Ports: given in a row or one by one, and those that are taken are said with their holder."""

import os
import socket

import pytest

from mmcore.errors import ConfigError
from mmcore.operate import ports


def test_ports_follow_the_base_but_for_those_that_were_chosen() -> None:
    assigned = ports.assign(9000, {"mlflow": 5000})
    assert assigned["dashboard"] == 9000
    assert assigned["prefect"] == 9001
    assert assigned["mlflow"] == 5000
    assert set(assigned) == set(ports.NAMES)


@pytest.mark.parametrize(
    ("base", "chosen", "said"),
    [
        (9000, {"grafana": 3000}, "no service has a port named 'grafana'"),
        (80, {}, "port 80 of dashboard is not between"),
        (65533, {}, "not between"),
        (9000, {"mlflow": 9001}, "prefect and mlflow cannot share port 9001"),
    ],
)
def test_ports_that_cannot_be_are_refused(base: int, chosen: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ports.assign(base, chosen)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_taken_port_is_said_with_its_holder_and_a_way_out(address: str) -> None:
    with socket.create_server((address, 0)) as holder:
        port = holder.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(ConfigError) as refused:
            ports.require_free({"mlflow": port})
    assert f"port {port} of mlflow is held by pid {os.getpid()}" in str(refused.value)
    base = int(str(refused.value).rpartition("--port-base ")[2])
    ports.require_free(ports.assign(base))
    ports.require_free({"mlflow": port})


def test_a_port_that_was_closed_a_moment_ago_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first waits in TIME_WAIT
        client.close()
    assert ports.is_free(port)
