"""Compiling: names tell content, nothing is left to a default, and the ceiling in Vault is as narrow as it can be."""

import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.canonical import JsonObject
from controlplane.model.plan import Compiled, Layout, ObjectKind
from controlplane.sync.ours import origin
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement

CHANGES: list[dict[str, Any]] = [
    {"ttl": {"default": "4m", "max": "15m"}},
    {"ttl": {"default": "5m", "max": "14m"}},
    {"eligibility": [{"issuer": "dev", "subject": "somebody else"}]},
    {"eligibility": [{"issuer": "other", "subject": "repo:acme/agent:ref:refs/heads/main"}]},
    {"entitlement": "orders-reads"},
    {"scopes": [{"name": "orders", "engine": "database", "connection": "orders",
                 "privileges": ["select (id) on table sales.orders"]}]},
    {"scopes": [{"name": "orders", "engine": "database", "connection": "other",
                 "privileges": ["select on table sales.orders"]}]},
    {"scopes": [{"name": "other", "engine": "database", "connection": "orders",
                 "privileges": ["select on table sales.orders"]}]},
    {"scopes": [{"name": "orders", "engine": "database", "connection": "orders", "sessions": 4,
                 "privileges": ["select on table sales.orders"]}]},
]  # fmt: skip


def data(compiled: Compiled, kind: ObjectKind) -> JsonObject:
    return next(item.data for item in compiled.objects if item.kind is kind)


def test_equal_entitlements_have_equal_objects() -> None:
    assert compiled_entitlement().objects == compiled_entitlement().objects


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_whatever_changes_in_vault_changes_the_revision(change: dict[str, Any]) -> None:
    assert compiled_entitlement(**change).revision != compiled_entitlement().revision


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "somebody@acme.example"},
        {"purpose": "Something."},
        {"labels": {"env": "prod"}},
        {"intents": ["answer-question", "another"]},
        {"delivery": "inline"},
    ],
    ids=str,
)
def test_what_vault_never_sees_does_not_change_the_revision(change: dict[str, Any]) -> None:
    assert compiled_entitlement(**change).revision == compiled_entitlement().revision


@pytest.mark.parametrize(
    "layout",
    [
        Layout(prefix="xx", mounts=LAYOUT.mounts),
        Layout(auth_mount="other", mounts=LAYOUT.mounts),
        Layout(audience="other", mounts=LAYOUT.mounts),
        Layout(mounts={"database": "db", "pki": "pki"}),
    ],
    ids=["prefix", "auth mount", "audience", "mount"],
)
def test_another_layout_is_another_revision(layout: Layout) -> None:
    assert compiled_entitlement(layout).revision != compiled_entitlement().revision


@given(st.data())
def test_the_order_of_lists_changes_nothing_y34(chosen: st.DataObject) -> None:
    scopes = [
        {"name": "a", "engine": "database", "connection": "c", "privileges": ["select on table x.y"]},
        {"name": "b", "engine": "pki", "common_name": "a.example.com", "alt_names": ["b.example.com", "c.example.com"]},
    ]
    eligibility = [{"issuer": "dev", "subject": "one"}, {"issuer": "dev", "subject": {"glob": "t*"}}]
    plain = compiled_entitlement(scopes=scopes, eligibility=eligibility)
    shuffled = compiled_entitlement(
        scopes=chosen.draw(st.permutations(scopes)), eligibility=chosen.draw(st.permutations(eligibility))
    )
    assert shuffled.objects == plain.objects


def test_what_can_be_logged_in_to_comes_last() -> None:
    kinds = [item.kind for item in compiled_entitlement().objects]
    assert kinds == [ObjectKind.SECRET_ROLE, ObjectKind.POLICY, ObjectKind.JWT_ROLE]


def test_every_object_has_the_name_of_its_revision() -> None:
    compiled = compiled_entitlement()
    assert [item.path for item in compiled.objects] == [
        f"database/roles/sh-orders-read-{compiled.revision}-orders",
        f"sys/policies/acl/sh-orders-read-{compiled.revision}",
        f"auth/shorthold/role/sh-orders-read-{compiled.revision}",
    ]


@pytest.mark.parametrize("name", ["root", "default", "response-wrapping", "control-group"])
def test_no_name_of_vaults_own_is_ever_written_or_taken_for_ours_y09(name: str) -> None:
    for layout in (LAYOUT, Layout(prefix=name.partition("-")[0], mounts=dict(LAYOUT.mounts))):
        written = [item.path for item in compiled_entitlement(layout, entitlement=name).objects]
        assert all(path.rpartition("/")[2].startswith(f"{layout.prefix}-{name}-") for path in written)
        assert origin(layout, ObjectKind.POLICY, f"sys/policies/acl/{name}") is None


def test_the_policy_allows_making_the_credential_and_wrapping_it_and_nothing_else() -> None:
    compiled = compiled_entitlement()
    policy: dict[str, Any] = json.loads(cast("str", data(compiled, ObjectKind.POLICY)["policy"]))
    assert policy == {
        "path": {
            f"database/creds/sh-orders-read-{compiled.revision}-orders": {"capabilities": ["read"]},
            "sys/wrapping/wrap": {"capabilities": ["update"], "min_wrapping_ttl": "1s", "max_wrapping_ttl": "1m"},
        }
    }


def test_the_task_token_is_narrow_short_and_revocable_y21() -> None:
    compiled = compiled_entitlement()
    role = data(compiled, ObjectKind.JWT_ROLE)
    assert role["token_type"] == "service"
    assert role["token_policies"] == [compiled.naming.base]
    assert role["token_no_default_policy"] is True
    assert role["token_ttl"] == 300
    assert role["token_max_ttl"] == role["token_explicit_max_ttl"] == 900
    assert role["token_period"] == role["token_num_uses"] == 0
    assert role["bound_audiences"] == ["shorthold-tasks"]
    assert role["user_claim"] == "sub"


def test_vault_pairs_issuer_and_subject_itself() -> None:
    compiled = compiled_entitlement(
        eligibility=[{"issuer": "dev", "subject": "one"}, {"issuer": "hub", "subject": "two"}]
    )
    role = data(compiled, ObjectKind.JWT_ROLE)
    assert role["bound_claims"] == {
        "entitlement": "orders-read",
        "revision": compiled.revision,
        "workload": ["dev one", "hub two"],
    }
    assert role["bound_claims_type"] == "string"


def test_patterns_are_patterns_in_vault_only_where_one_is_written() -> None:
    role = data(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "a*"}}]), ObjectKind.JWT_ROLE)
    assert role["bound_claims_type"] == "glob"
