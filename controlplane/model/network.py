"""Addresses and networks as people write them: `10.0.0.0/8`, `2001:db8::/32`, or one address."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

Address = IPv4Address | IPv6Address


def parse_address(text: str) -> Address | None:
    """The address written as `text`, None where it is none; IPv4 within IPv6 (`::ffff:10.0.0.1`) is IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def parse_network(text: object) -> IPv4Network | IPv6Network:
    """The network written as CIDR.

    Raises: ValueError: it is none, or has bits set beyond its mask: then nobody can tell what was meant.
    """
    if isinstance(text, IPv4Network | IPv6Network):
        return text
    if not isinstance(text, str) or "%" in text:
        raise ValueError("write a network as CIDR: 10.0.0.0/8 or 2001:db8::/32")
    try:
        network = ip_network(text)
    except ValueError as error:
        raise ValueError(f"write a network as CIDR, such as 10.0.0.0/8: {error}") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError("write a network of IPv4 addresses as such: no address matches it within IPv6")
    return network


Network = Annotated[
    IPv4Network | IPv6Network,
    PlainValidator(parse_network),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": "string",
            "examples": ["10.0.0.0/8", "2001:db8::/32"],
            "description": "A network as CIDR; one address is a network of its own.",
        }
    ),
]
