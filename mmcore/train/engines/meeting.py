"""Where ranks meet: at the address of the first one, and on no other interface of its host."""

import errno
import fcntl
import os
import socket
import struct
from datetime import timedelta

from torch import distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from mmcore.errors import RanksLost
from mmcore.train.engines.world import World

_SIOCGIFADDR = 0x8915
_NAME_BYTES = 256


def join_ranks(backend: str, world: World, *, patience: timedelta) -> None:
    """Make one process group of all ranks; `patience` is that of a rank with the others."""
    name = interface_towards(world.address)
    if name is not None:
        # else gloo asks what the host is called, and where that is looked up is no promise
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    dist.init_process_group(
        backend,
        store=_store(world, patience),
        rank=world.rank,
        world_size=world.num_ranks,
        timeout=patience,
    )


def interface_towards(address: str) -> str | None:
    """Return the interface by which this host speaks to an address; None where that is unknown."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # nothing is sent
        except OSError:
            return None
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            request = struct.pack(f"{_NAME_BYTES}s", name.encode())
            try:
                found = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(found[20:24]) == own:
                return name
    return None


def _store(world: World, patience: timedelta) -> Store:
    """Return where ranks tell each other their addresses; the first one serves it.

    torch by itself would listen on all interfaces.
    """
    if world.rank == 0 and world.serves_store:
        family = socket.AF_INET6 if ":" in world.address else socket.AF_INET
        try:
            listener = socket.create_server((world.address, world.port), family=family)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise RanksLost(
                    f"somebody else took port {world.port} of {world.address}, where the ranks "
                    "were to meet. Run the same command again."
                ) from error
            # the address may be that of a service in front of this host
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return TCPStore(
                world.address, world.port, world.num_ranks, True, patience, wait_for_workers=False
            )
        return TCPStore(
            world.address,
            world.port,
            world.num_ranks,
            True,
            patience,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
    return TCPStore(world.address, world.port, world.num_ranks, False, patience)
