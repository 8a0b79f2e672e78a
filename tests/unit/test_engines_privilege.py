"""The language of privileges: what it says, and that it can say nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.engines.dialects.postgresql import parse
from controlplane.engines.dialects.terms.privilege import Privilege


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("select on table billing.invoices", "select on table billing.invoices"),
        ("  SELECT   on TABLE Billing.Invoices ", "select on table billing.invoices"),
        ("update (status) on table billing.invoices", "update (status) on table billing.invoices"),
        ("select(name,  id) on table sales.customers", "select (id, name) on table sales.customers"),
        ("insert on table a.b", "insert on table a.b"),
        ("delete on table a.b", "delete on table a.b"),
        ("usage on sequence billing.refunds_id_seq", "usage on sequence billing.refunds_id_seq"),
        ("select on sequence billing.refunds_id_seq", "select on sequence billing.refunds_id_seq"),
        ('select on table "Sales"."Order Lines"', 'select on table "Sales"."Order Lines"'),
        ('select on table "sales"."orders"', "select on table sales.orders"),
        ("select (member, public) on table club.people", "select (member, public) on table club.people"),
    ],
)
def test_a_privilege_has_one_spelling(text: str, spelled: str) -> None:
    assert str(parse(text)) == spelled
    assert parse(spelled) == parse(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("all on table sales.orders", "ALL"),
        ("all privileges on table sales.orders", "ALL"),
        ("select on all tables in schema sales", "ALL"),
        ("select on table sales.*", "wildcards"),
        ("select (*) on table sales.orders", "wildcards"),
        ("select on table sales.orders to public", "PUBLIC"),
        ("select on table sales.orders with grant option", "grant option"),
        ("grant select on table sales.orders", "leaves out the word GRANT"),
        ("create on schema sales", "rows only"),
        ("truncate on table sales.orders", "rows only"),
        ("references on table sales.orders", "rows only"),
        ("trigger on table sales.orders", "rows only"),
        ("maintain on table sales.orders", "rows only"),
        ("execute on function sales.do_it()", "rows only"),
        ("drop table sales.orders", "rows only"),
        ("superuser", "never a power of a role"),
        ("member of pg_write_server_files", "never a power of a role"),
        ("select, insert on table sales.orders", "one verb"),
        ("select on table sales.orders; drop table sales.orders", "not SQL"),
        ("select on table sales.orders -- all of it", "not SQL"),
        ("select on table sales.orders/**/", "not SQL"),
        ("select on table sales.$$x$$", "not SQL"),
        ("select on table sales.'orders'", "not SQL"),
        ('select on table U&"\\0073ales".orders', "not SQL"),
        ("select on table orders", "schema.name"),
        ("select on view sales.orders", "there is no select on view"),
        ("usage on table sales.orders", "there is no usage on table"),
        ("update on sequence sales.s", "there is no update on sequence"),
        ("delete (id) on table sales.orders", "never by column"),
        ("select (id) on sequence sales.s", "never by column"),
        ("select (id, id) on table sales.orders", "twice"),
        ("select () on table sales.orders", "schema.name"),
        ("select on table pg_catalog.pg_authid", "nobody is let into it"),
        ("select on table Information_Schema.tables", "nobody is let into it"),
        ('select on table "pg_toast".x', "nobody is let into it"),
        ("", "schema.name"),
    ],
)
def test_what_is_no_privilege_on_rows_is_refused_with_what_to_write_instead(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        parse(text)


_PARTS = (*"(),. \"';$\\{}*-Ö\n\0", "select", "update", "on", "table", "sequence", "sales", "all", "public", "END")


@given(st.lists(st.sampled_from(_PARTS), max_size=14).map("".join) | st.text(max_size=60))
def test_whatever_is_read_can_stand_in_sql_between_double_quotes(text: str) -> None:
    try:
        privilege = parse(text)
    except ValueError:
        return
    for name in (privilege.schema, privilege.name, *privilege.columns):
        assert re.fullmatch(r"[A-Za-z0-9_ .-]{1,63}", name), name


_NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}|[A-Za-z0-9_ .-]{1,20}", fullmatch=True)


@given(
    verb=st.sampled_from(["select", "insert", "update"]),
    columns=st.lists(_NAMES, unique=True, max_size=4),
    schema=_NAMES.filter(lambda name: not re.fullmatch(r"pg_.*|information_schema", name, re.IGNORECASE)),
    name=_NAMES,
)
def test_what_is_spelled_is_read_back_the_same(verb: str, columns: list[str], schema: str, name: str) -> None:
    privilege = Privilege(verb=verb, columns=tuple(sorted(columns)), kind="table", schema=schema, name=name)
    assert parse(str(privilege)) == privilege
