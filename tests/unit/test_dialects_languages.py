"""The languages of MariaDB and Redis: what they say, and that they can say nothing else (Y15, Y16)."""

import json
import re
from datetime import timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.engines.dialects import DatabaseScope, Dialect, mariadb, postgresql, redis
from controlplane.engines.dialects.terms.group import Group
from controlplane.engines.dialects.terms.privilege import Privilege

GROUP = Group(prefix="sh", entitlement="orders", revision="0a1b2c3d", scope="it")
QUARTER = timedelta(minutes=15)


def mariadb_statements(*privileges: str) -> list[str]:
    scope = DatabaseScope.model_validate(
        {"name": "it", "engine": "database", "dialect": "mariadb", "connection": "shop", "privileges": privileges}
    )
    (text,) = mariadb.DIALECT.statements(scope, GROUP, maximum=QUARTER).creation
    return cast("list[str]", json.loads(text))


@pytest.mark.parametrize(
    ("dialect", "words", "ends"),
    [
        (postgresql.DIALECT, {"privileges": ["select on table a.b"]}, ["NOLOGIN", "pg_terminate_backend", "DROP ROLE"]),
        (
            mariadb.DIALECT,
            {"dialect": "mariadb", "privileges": ["select on table a.b"]},
            ["ACCOUNT LOCK", "KILL", "DROP USER"],
        ),
    ],
    ids=["postgresql", "mariadb"],
)
def test_no_end_of_a_login_is_left_to_what_the_plugin_would_do_y19(
    dialect: Dialect, words: dict[str, Any], ends: list[str]
) -> None:
    scope = DatabaseScope.model_validate({"name": "it", "engine": "database", "connection": "shop", **words})
    said = " ".join(dialect.statements(scope, GROUP, maximum=QUARTER).revocation)
    assert all(re.search(rf"\b{end}\b", said) for end in ends), said


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("  SELECT   on TABLE shop.orders ", "select on table shop.orders"),
        ("select(name,  id) on table shop.customers", "select (id, name) on table shop.customers"),
        ('select on table "Shop"."Order Lines"', 'select on table "Shop"."Order Lines"'),
        ('select on table "shop".orders', "select on table shop.orders"),
    ],
)
def test_a_privilege_on_a_table_has_one_spelling(text: str, spelled: str) -> None:
    assert str(mariadb.parse(text)) == spelled


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SELECT ON TABLE Shop.orders", "double quotes"),
        ("select on table shop.Orders", "double quotes"),
        ("select (Id) on table shop.orders", "double quotes"),
        ("select on table mysql.global_priv", "nobody is let into it"),
        ("select on table information_schema.tables", "nobody is let into it"),
        ("select on table shorthold.x", "nobody is let into it"),
        ('select on table "MySQL".user', "nobody is let into it"),
        ("usage on sequence shop.s", "there is no usage on sequence"),
        ("select on table shop.*", "wildcards"),
        ("select on table shop.`orders`", "schema.name"),
        ("execute on procedure shop.p", "rows only"),
        ("all on table shop.orders", "ALL"),
        ("select on table shop.orders with grant option", "grant option"),
        ("select on table shop." + "x" * 65, "schema.name"),
    ],
)
def test_what_is_no_privilege_on_rows_of_mariadb_is_refused(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        mariadb.parse(text)


_NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}|[A-Za-z0-9_ .-]{1,20}", fullmatch=True)
_PARTS = (*"(),. \"';$\\{}*`-Ö\n\0#", "/*", "select", "on", "table", "keys", "shop", "all", "END", "{{name}}", "BEGIN")
_TEXTS = st.lists(st.sampled_from(_PARTS), max_size=14).map("".join) | st.text(max_size=60)


@given(_TEXTS)
def test_whatever_mariadb_is_told_can_stand_between_backticks(text: str) -> None:
    try:
        privilege = mariadb.parse(text)
    except ValueError:
        return
    for name in (privilege.schema, privilege.name, *privilege.columns):
        assert re.fullmatch(r"[A-Za-z0-9_ .-]{1,64}", name), name


@given(
    verb=st.sampled_from(["select", "insert", "update"]),
    columns=st.lists(_NAMES, unique=True, max_size=4),
    schema=_NAMES.filter(lambda name: not mariadb.GRAMMAR.system.fullmatch(name)),
    name=_NAMES,
)
def test_what_is_compiled_is_read_back_the_same(verb: str, columns: list[str], schema: str, name: str) -> None:
    privilege = Privilege(verb=verb, columns=tuple(sorted(columns)), kind="table", schema=schema, name=name)
    assert mariadb.parse(str(privilege)) == privilege
    grants = mariadb_statements(str(privilege))[-1]
    found = re.findall(r"GRANT ([A-Z]+)(?: \((.+?)\))? ON TABLE `(.+?)`\.`(.+?)` TO '{{name}}'@'%';\n", grants)
    assert found == [(verb.upper(), ", ".join(f"`{column}`" for column in sorted(columns)), schema, name)]
    assert grants.count("GRANT") == 1 + sum(part.count("GRANT") for part in (*columns, schema, name))


def test_the_clock_comes_before_the_login_and_the_login_before_its_privileges() -> None:
    awake, clock, login, grants = mariadb_statements("select on table shop.orders")
    assert "event_scheduler" in awake
    assert clock.startswith(
        "CREATE EVENT shorthold.`{{name}}` ON SCHEDULE AT CURRENT_TIMESTAMP + INTERVAL 930 SECOND\n"
    )
    assert "COMMENT 'sh-orders-0a1b2c3d-it' DO BEGIN" in clock
    assert login == "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' WITH MAX_USER_CONNECTIONS 5"
    assert "GRANT SELECT ON TABLE `shop`.`orders` TO '{{name}}'@'%';" in grants


@pytest.mark.parametrize(
    ("text", "spelled", "selector"),
    [
        (" GET  on KEYS cart:* ", "get on keys cart:*", "(%R~cart:* +get)"),
        ("Set on keys Cart:*:items", "set on keys Cart:*:items", "(%W~Cart:*:items +set)"),
        ("incr on keys {shop}:n", "incr on keys {shop}:n", "(~{shop}:n +incr)"),
    ],
)
def test_a_privilege_on_keys_has_one_spelling(text: str, spelled: str, selector: str) -> None:
    assert str(redis.parse(text)) == spelled
    assert redis.parse(text).selector == selector


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("read on keys *", "more than a task needs"),
        ("read on keys *:x", "more than a task needs"),
        ("read on keys a**", "write it as"),
        ("read on keys a?b", "one sign"),
        ("read on keys a[bc]", "one sign"),
        ("+get ~cart:*", "is no ACL rule"),
        ("+@all on keys a:*", "is no ACL rule"),
        ("read on keys %R~a", "is no ACL rule"),
        ("all on keys a:*", "ALL"),
        ("read on keys a:* b:*", "a line for each"),
        ("read on keys a:*) (+@all ~*", "ACL rule"),
        ("eval on keys a:*", "is no command"),
        ("keys on keys a:*", "is no command"),
        ("scan on keys a:*", "is no command"),
        ("sort on keys a:*", "is no command"),
        ("rename on keys a:*", "is no command"),
        ("flushall on keys a:*", "is no command"),
        ("publish on keys a:*", "is no command"),
        ("dump on keys a:*", "is no command"),
        ("object on keys a:*", "is no command"),
        ("read on channels news", "write it as"),
        ("read on keys {{name}}:*", "no templates"),
        ("read on keys " + "x" * 200, "write it as"),
        ("read on keys a:\n*", "write it as"),
        ("", "write it as"),
    ],
)
def test_what_is_no_privilege_on_keys_is_refused_with_what_to_write_instead(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        redis.parse(text)


@given(_TEXTS | st.builds("{} on keys {}".format, st.sampled_from(["read", "set", "x"]), _TEXTS))
def test_whatever_redis_is_told_is_one_selector_of_known_commands_on_one_pattern(text: str) -> None:
    try:
        privilege = redis.parse(text)
    except ValueError:
        return
    assert redis.parse(str(privilege)) == privilege
    shape = re.fullmatch(r"\((?:%R|%W)?~([A-Za-z0-9_:./{}*-]+)((?: \+[a-z]+)+)\)", privilege.selector)
    assert shape is not None
    assert not shape[1].startswith("*")
    assert set(shape[2].split()) == {f"+{command}" for command in privilege.commands}
    assert set(privilege.commands) <= redis.COMMANDS


def test_a_redis_login_begins_with_nothing() -> None:
    scope = DatabaseScope.model_validate(
        {"name": "it", "engine": "database", "dialect": "redis", "connection": "x", "privileges": ["get on keys a:*"]}
    )
    said = redis.DIALECT.statements(scope, GROUP, maximum=QUARTER)
    (rules,) = said.creation
    assert json.loads(rules) == ["resetkeys", "resetchannels", "-@all", "clearselectors", "+ping", "(%R~a:* +get)"]
    assert said.revocation == (), "the plugin knows ACL DELUSER only"
