"""Which addresses a list of URLs may make this machine ask: public ones, unless told otherwise.

A name is looked up once, every address that it has is judged, and the connection goes to one of
those: an answer that changes between the look and the call changes nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

import httpcore

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")


class AddressRefused(Exception):
    """A host has an address that must not be asked."""


class NameUnknown(Exception):
    """A host has no address."""


def is_public(address: str) -> bool:
    """Return whether an address is one of the open internet, however it is wrapped.

    >>> is_public("93.184.215.14"), is_public("::ffff:127.0.0.1"), is_public("169.254.169.254")
    (True, False, False)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _LOCAL_NAT64 or ip.is_site_local:
            return False
        if ip.ipv4_mapped is not None:
            return _is_open(ip.ipv4_mapped)
        if ip in _NAT64:
            return _is_open(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        tunnelled = [one for one in (ip.sixtofour, *(ip.teredo or ())) if one is not None]
        if not all(_is_open(one) for one in tunnelled):
            return False
    return _is_open(ip)


def _is_open(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to hosts by addresses that were judged, and to nothing else."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._addresses(host, port)
        for last, address in enumerate(addresses, 1):
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if last == len(addresses):
                    raise
        raise NameUnknown(f"{host} has no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise AddressRefused("a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, IPv4 first; AddressRefused if one of them is private."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise NameUnknown(f"{host}: {error}") from error
        found.sort(key=lambda one: one[0] != socket.AF_INET)
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        private = [one for one in addresses if not is_public(one)]
        if private and not self._allow_private:
            named = f"{host} is {private[0]}" if host != private[0] else host
            raise AddressRefused(
                f"{named}, which is not public (fetch.allow_private lets it be asked)"
            )
        return addresses
