"""Where a request comes from: our own proxies are believed, from right to left, and nobody else ever (J38)."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.http.address import caller_address

PROXIES = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["192.168.0.1"], "203.0.113.7"),  # a stranger says so himself
        ("10.2.0.1", ["192.168.0.1"], "10.2.0.1"),  # near, but no proxy of ours
        ("10.1.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.1.0.1", ["192.168.0.1, 203.0.113.7"], "203.0.113.7"),  # what stands left of him is his own invention
        ("10.1.0.1", ["192.168.0.1", "203.0.113.7"], "203.0.113.7"),
        ("10.1.0.1", ["10.1.0.9, 203.0.113.7, 10.1.0.2"], "203.0.113.7"),
        ("10.1.0.1", ["203.0.113.7,10.1.0.2 ,\t10.1.0.3"], "203.0.113.7"),
        ("10.1.0.1", ["10.1.0.9, 10.1.0.2"], "10.1.0.9"),
        ("::ffff:10.1.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("10.1.0.1", [], None),  # the proxy's own address is not the caller's
        ("10.1.0.1", [""], None),
        ("10.1.0.1", ["203.0.113.7, unknown"], None),
        ("10.1.0.1", ["203.0.113.7, "], None),
        ("10.1.0.1", ["203.0.113.7:4711"], None),
        ("10.1.0.1", ["203.0.113.7, 10.1.0.2, _hidden"], None),
        ("10.1.0.1", ["010.001.000.002"], None),
        ("testclient", ["203.0.113.7"], None),
        (None, ["203.0.113.7"], None),
    ],
)
def test_j38_the_callers_address_is_what_our_own_proxies_vouch_for(
    peer: str | None, forwarded: list[str], expected: str | None
) -> None:
    assert caller_address(peer, forwarded, PROXIES) == (None if expected is None else ip_address(expected))


@given(st.ip_addresses(), st.lists(st.text(max_size=40) | st.ip_addresses().map(str), max_size=5))
def test_j38_without_trusted_proxies_no_header_changes_anything(peer: object, forwarded: list[str]) -> None:
    assert caller_address(str(peer), forwarded, ()) == caller_address(str(peer), [], ())


@given(st.lists(st.text(max_size=40) | st.ip_addresses().map(str), max_size=5))
def test_j38_nothing_that_a_caller_puts_before_changes_who_he_is(invented: list[str]) -> None:
    told = [*invented, "203.0.113.7"]
    assert caller_address("10.1.0.1", told, PROXIES) == ip_address("203.0.113.7")
    assert caller_address("10.1.0.1", [",".join(told)], PROXIES) == ip_address("203.0.113.7")
