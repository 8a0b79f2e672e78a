"""The ports of embedded servers: they are still free after a restart."""

import pytest

from controlplane.dev.loopback import lasting, outgoing


@pytest.mark.parametrize(
    "taken", [range(32_768, 61_000), range(16_000, 65_536), range(10_000, 40_000), range(20_000, 30_000)]
)
def test_no_outgoing_connection_takes_the_port_of_a_server(taken: range) -> None:
    assert not set(lasting(taken)) & set(taken)


def test_where_outgoing_connections_may_have_every_port_there_is_one_all_the_same() -> None:
    assert lasting(range(1_024, 65_536))


def test_ports_are_none_that_this_system_gives_away() -> None:
    assert not set(lasting(outgoing())) & set(outgoing())
