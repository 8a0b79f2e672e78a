"""Reading what was written: the point in the server's log that answers name is sent back (fact 22)."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.testing.hostile_vault import answering, hostile_vault
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.index import Index


def point(cluster: str, value: object) -> str:
    return base64.b64encode(json.dumps({"cluster": cluster, "value": value}).encode()).decode()


def test_nothing_is_sent_before_a_server_has_named_a_point() -> None:
    index = Index()
    assert index.headers() == {}
    index.saw(None)
    assert index.headers() == {}


def test_the_latest_point_is_sent_in_whatever_order_answers_arrive() -> None:
    index = Index()
    for value in ("7", "12", "9"):
        index.saw(point("one", value))
    assert index.headers() == {"X-Vault-Index": point("one", "12"), "X-Vault-Inconsistent": "forward-active-node"}


def test_another_cluster_counts_anew() -> None:
    index = Index()
    index.saw(point("one", "1200"))
    index.saw(point("two", "3"))
    assert index.headers()["X-Vault-Index"] == point("two", "3")


@pytest.mark.parametrize(
    "header",
    ["", "x", "e30=", "not base64!", point("one", 12), point("one", "-1"), point("one", "²"), "A" * 513, "a\r\nb: c"],
)
def test_a_point_that_is_none_is_never_sent(header: str) -> None:
    index = Index()
    index.saw(header)
    assert index.headers() == {}


@given(st.text(max_size=600))
def test_no_text_is_an_error(header: str) -> None:
    index = Index()
    index.saw(header)
    assert index.headers() == {}


def test_every_request_names_the_point_of_the_answers_before_it() -> None:
    with hostile_vault(answering(200, {"data": {}}, f"X-Vault-Index: {point('one', '5')}")) as server:
        client = VaultClient(Server(server.addr), None)
        client.read("sys/one")
        client.read("sys/two")
        client.close()
    first, second = server.seen
    assert b"X-Vault-Index" not in first
    assert f"X-Vault-Index: {point('one', '5')}".encode() in second
    assert b"X-Vault-Inconsistent: forward-active-node" in second


@pytest.mark.servers
def test_the_active_node_answers_whatever_point_is_named(vault_root: VaultClient) -> None:
    """After a backup was put back its log is shorter than what we have seen of it."""
    vault_root.read("sys/policies/acl/default")
    named = vault_root.transport.index.headers()["X-Vault-Index"]
    cluster = json.loads(base64.b64decode(named))["cluster"]
    vault_root.transport.index.saw(point(cluster, "999999999"))
    assert vault_root.read("sys/policies/acl/default") is not None
    assert vault_root.write("sys/leases/revoke", {"lease_id": "database/creds/none/x", "sync": True}) is None
