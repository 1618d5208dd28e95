"""Lists of strangers must not be able to ask the machines of this network."""

import asyncio
import socket
from typing import Any

import pytest

from mmcore.ingest.addresses import AddressRefused, GuardedBackend, NameUnknown, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1",
        "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fd12:3456::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe",
        "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::",
        "2002:a00:1::1", "2001:db8::1", "2001:0:0:0:0:0:80ff:fffe", "fec0::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_known_however_it_is_wrapped(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "93.184.215.14",
        "8.8.8.8",
        "2606:2800:21f:cb07:6820:80da:af6b:8b2c",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_an_address_of_the_open_internet_is_public(address: str) -> None:
    assert is_public(address)


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name have these addresses; return where connections went."""
    connected: list[str] = []

    def looked_up(host: str, port: int, *_: object, **__: object) -> list[Any]:
        if not addresses:
            raise socket.gaierror(-2, "Name or service not known")
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(kinds[":" in one], socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    async def connect_tcp(_: object, host: str, *__: object) -> object:
        connected.append(host)
        return object()

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect_tcp)
    return connected


def connect(*, allow_private: bool = False) -> None:
    backend = GuardedBackend(allow_private=allow_private)
    asyncio.run(backend.connect_tcp("some.example", 80))


def test_a_name_is_judged_by_what_it_resolves_to_and_that_is_what_is_called(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connected = answers(monkeypatch, "93.184.215.14")
    connect()
    assert connected == ["93.184.215.14"]


@pytest.mark.parametrize("private", ["127.0.0.1", "::1", "::ffff:10.0.0.1", "169.254.169.254"])
def test_one_private_address_among_public_ones_refuses_the_name(
    monkeypatch: pytest.MonkeyPatch, private: str
) -> None:
    connected = answers(monkeypatch, "93.184.215.14", private)
    with pytest.raises(AddressRefused, match="not public"):
        connect()
    assert connected == []


def test_private_addresses_are_called_where_that_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connected = answers(monkeypatch, "10.0.0.1")
    connect(allow_private=True)
    assert connected == ["10.0.0.1"]


def test_a_name_without_an_address_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch)
    with pytest.raises(NameUnknown):
        connect()
