"""Where a request comes from: the peer, or what our own proxies say of it, and nothing that anybody else says."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from controlplane.model.network import Address, parse_address


def caller_address(
    peer: str | None, forwarded: Sequence[str], trusted: Iterable[IPv4Network | IPv6Network]
) -> Address | None:
    """The caller's address, None where nobody whom we trust vouches for one.

    `peer` is the other end of the connection, `forwarded` the X-Forwarded-For headers in their order. Each proxy
    appends whom it was called by, so the list is read from its end and only while the one who said it is trusted;
    the first who is not is the caller, and whatever stands before was said by him.
    """
    proxies = tuple(trusted)
    at = parse_address(peer or "")
    if at is None or not _within(at, proxies):
        return at
    told = [part.strip() for line in forwarded for part in line.split(",")]
    # A proxy that names nobody says nothing of the caller: its own address is not the caller's.
    at = None
    for part in reversed(told):
        at = parse_address(part)
        if at is None or not _within(at, proxies):
            return at
    return at


def _within(address: Address, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    return any(address in network for network in networks)
