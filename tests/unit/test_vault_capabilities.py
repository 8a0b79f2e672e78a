"""What a server is and can, as it says itself; what it does not say is not guessed."""

from dataclasses import replace

import pytest
from pytest_socket import enable_socket

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import VaultUnavailableError
from controlplane.model.plan import Layout
from controlplane.testing.canned import canned
from controlplane.vault.capabilities import Feature, ServerFacts, look
from controlplane.vault.client import Server, VaultClient

FACTS = ServerFacts(
    product="OpenBao",
    version="2.7.2",
    seal="static",
    namespace="acme",
    features=(
        Feature(name="namespaces", there=True, used=True, note=""),
        Feature(name="cel-roles", there=True, used=False, note=""),
        Feature(name="lease-count-quotas", there=False, used=False, note=""),
        Feature(name="engine-ssh", there=False, used=True, note=""),
        Feature(name="engine-transit", there=None, used=True, note=""),
    ),
)


def test_one_line_says_what_is_used_what_is_missing_and_what_is_not_needed() -> None:
    assert str(FACTS) == (
        "OpenBao 2.7.2, seal static, namespace acme; uses: namespaces; MISSING: engine-ssh; not used: cel-roles; "
        "not there, not needed: lease-count-quotas"
    )


def test_what_this_token_cannot_see_is_neither_there_nor_missing() -> None:
    assert "transit" not in str(FACTS)
    assert [one.name for one in FACTS.features if one.missing] == ["engine-ssh"]


def test_a_seal_of_shares_needs_people_after_a_restart() -> None:
    assert FACTS.unseals_itself
    assert not replace(FACTS, seal="shamir").unseals_itself
    assert FACTS.data["unseals_itself"] is True


@pytest.mark.parametrize(
    ("title", "version", "there"),
    [
        ("HashiCorp Vault API", "1.21.0", set[str]()),
        ("HashiCorp Vault API", "1.21.0+ent", {"namespaces", "control-groups"}),
        ("OpenBao API", "2.7.2", {"namespaces", "control-groups"}),
    ],
)
def test_paths_that_the_community_edition_lists_and_refuses_do_not_count(
    title: str, version: str, there: set[str]
) -> None:
    """By Vault's documents: no HashiCorp Vault was at hand."""
    enable_socket()  # to a server of our own, on loopback
    with canned() as server:
        listed: JsonValue = {"/sys/namespaces/": {}, "/sys/control-group/request": {}}
        server.answers = {
            "GET /v1/sys/seal-status": (200, {"version": version, "type": "shamir"}),
            "GET /v1/sys/internal/specs/openapi": (200, {"info": {"title": title}, "paths": listed}),
        }
        client = VaultClient(Server(server.addr), None)
        facts = look(client, Layout(mounts={"database": "database"}), ["database"])
        assert {one.name for one in facts.features if one.there} == there
        assert [one.name for one in facts.features if one.missing] == ["engine-database"]
        assert not facts.unseals_itself
        server.answers["GET /v1/sys/internal/specs/openapi"] = (200, {"info": {"title": "Petstore"}, "paths": listed})
        with pytest.raises(VaultUnavailableError, match="does not say what it is"):
            look(client, Layout(mounts={"database": "database"}))
        client.close()
