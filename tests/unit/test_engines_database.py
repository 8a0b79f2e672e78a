"""What a database scope becomes: statements that Vault runs as they are, in which nothing was pasted."""

import re
from datetime import timedelta
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.engines.database import ENGINE
from controlplane.engines.dialects import DatabaseScope, postgresql
from controlplane.engines.dialects.postgresql import parse
from controlplane.engines.dialects.terms.group import Group
from controlplane.model.canonical import JsonObject
from controlplane.model.grant import Revision
from controlplane.model.lease import LeaseId, Response
from controlplane.model.plan import Layout, Naming
from controlplane.model.secret import Secret

NAMING = Naming(layout=Layout(mounts={"database": "database"}), entitlement="orders", revision=Revision("0a1b2c3d"))


def scope(*privileges: str, **changes: object) -> DatabaseScope:
    fields = {"name": "it", "engine": "database", "connection": "orders", "privileges": privileges}
    return DatabaseScope.model_validate(fields | changes)


def role(of: DatabaseScope) -> JsonObject:
    return ENGINE.roles(of, NAMING, default=timedelta(minutes=5), maximum=timedelta(minutes=15))[0].data


def statements(data: JsonObject, name: str) -> list[str]:
    return cast("list[str]", data[name])


def test_the_order_of_lines_and_their_spelling_change_nothing() -> None:
    one = scope("select on table a.b", "update (x, y) on table a.b")
    other = scope("UPDATE (y,x) on table a.b", "select  on table A.B")
    assert role(one) == role(other)


def test_no_statement_is_cut_at_its_semicolons_and_no_placeholder_is_left() -> None:
    data = role(scope("select on table a.b"))
    for name in ("creation_statements", "revocation_statements"):
        for text in statements(data, name):
            # Vault splits at `;` what has no END outside its last quoted literal.
            assert re.search(r"\bEND\b", text)
            assert not re.search(r"<[a-z]+>", text)
            assert set(re.findall(r"{{(\w+)}}", text)) <= {"name", "password", "expiration"}
    assert [";" in text for text in statements(data, "renew_statements")] == [False]


def test_a_login_that_was_handed_out_outlives_a_crash_of_its_server() -> None:
    """PostgreSQL docs, "Asynchronous Commit": what was told to be there may be lost for half a second and more."""
    assert "synchronous_commit" not in statements(role(scope("select on table a.b")), "creation_statements")[0]


def test_the_login_has_an_end_a_limit_and_nothing_but_its_group() -> None:
    text = statements(role(scope("select on table a.b", sessions=3)), "creation_statements")[0]
    login = text[text.index('CREATE ROLE "{{name}}"') :]
    assert login == (
        "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT 3;\n"
        'GRANT "sh-orders-0a1b2c3d-it" TO "{{name}}" WITH INHERIT TRUE, SET FALSE'
    )
    assert 'TO "{{name}}"' not in text[: text.index('CREATE ROLE "{{name}}"')], "no privilege goes to the login itself"


def test_the_group_gets_exactly_what_is_written() -> None:
    wanted = scope(
        "select (id, name) on table sales.customers",
        "update (status) on table billing.invoices",
        "usage on sequence billing.refunds_id_seq",
    )
    text = statements(role(wanted), "creation_statements")[0]
    assert re.findall(r"GRANT (.+?) TO \"sh-orders-0a1b2c3d-it\";", text) == [
        'USAGE ON SCHEMA "billing"',
        'USAGE ON SCHEMA "sales"',
        'SELECT ("id", "name") ON TABLE "sales"."customers"',
        'UPDATE ("status") ON TABLE "billing"."invoices"',
        'USAGE ON SEQUENCE "billing"."refunds_id_seq"',
    ]


@given(
    prefix=st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True),
    entitlement=st.from_regex(r"[a-z][a-z0-9-]{2,47}", fullmatch=True),
    name=st.from_regex(r"[a-z][a-z0-9-]{0,15}", fullmatch=True),
)
def test_a_group_role_has_a_name_that_postgresql_does_not_cut(prefix: str, entitlement: str, name: str) -> None:
    group = Group(prefix=prefix, entitlement=entitlement, revision="0a1b2c3d", scope=name)
    assert len(group.name.encode()) <= 63
    assert group.name.startswith(f"{prefix}-{entitlement[:3]}")
    assert group.name.endswith(f"-0a1b2c3d-{name}")
    older = Group(prefix=prefix, entitlement=entitlement, revision="ffffffff", scope=name)
    assert re.fullmatch(group.siblings, older.name)
    assert not re.fullmatch(group.siblings, f"{older.name}x")


def test_a_privilege_twice_is_an_error_even_in_two_spellings() -> None:
    with pytest.raises(ValueError, match="twice"):
        scope("select on table a.b", "SELECT on table A.B")


def test_every_privilege_is_checked_before_it_is_granted_again() -> None:
    group = Group(prefix="sh", entitlement="orders", revision="0a1b2c3d", scope="it")
    text = postgresql.creation(group, [parse("select on table a.b"), parse("insert (c) on table a.b")], sessions=1)
    assert "has_table_privilege(oid, '\"a\".\"b\"', 'SELECT')" in text
    assert "has_column_privilege(oid, '\"a\".\"b\"', 'c', 'INSERT')" in text


def answer(**data: Secret) -> Response:
    return Response(lease=LeaseId("database/creds/x/1"), lease_ttl=timedelta(minutes=5), data=data)


def test_the_agent_gets_user_and_password_and_the_store_only_the_user() -> None:
    credential = ENGINE.receive(scope("select on table a.b"), answer(username=Secret("v_1"), password=Secret("p")))
    assert credential.principal == "v_1"
    assert {name: value.reveal() for name, value in credential.fields.items()} == {"username": "v_1", "password": "p"}


def test_a_user_name_that_would_not_be_safe_in_sql_is_refused_d13() -> None:
    with pytest.raises(ValueError, match="username_template"):
        ENGINE.receive(scope("select on table a.b"), answer(username=Secret("v\";--'"), password=Secret("p")))


def test_the_blast_radius_is_told_in_sentences() -> None:
    assert ENGINE.reach(scope("update (status) on table billing.invoices", "select on table billing.invoices")) == [
        "may read billing.invoices in orders",
        "may change (status) of billing.invoices in orders",
    ]
