"""Raw statements: one GRANT to our own group, answered for by somebody until a date, and shown word for word."""

import json
from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from controlplane.engines import engines
from controlplane.model.canonical import JsonValue
from controlplane.sync.review import review
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement, document, entitlement

REFUND = "GRANT EXECUTE ON FUNCTION billing.refund(integer)"
TODAY = date(2026, 1, 5)


def scoped(*raw: str) -> list[dict[str, JsonValue]]:
    return [
        {
            "name": "orders",
            "engine": "database",
            "connection": "orders",
            "privileges": ["select on table sales.orders"],
            "raw": [*raw],
        }
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "GRANT EXECUTE ON FUNCTION f(integer) TO PUBLIC",
        "GRANT EXECUTE ON FUNCTION f(integer) TO {{name}}",
        "GRANT EXECUTE ON FUNCTION f(integer); DROP TABLE billing.invoices",
        "GRANT EXECUTE ON FUNCTION f(integer) -- ",
        "GRANT EXECUTE ON FUNCTION f(integer) /* */",
        "GRANT EXECUTE ON FUNCTION f(integer) $shorthold$",
        "GRANT EXECUTE ON FUNCTION <group>",
        'GRANT SELECT ON "x',
        "GRANT SELECT ON x' OR '1",
        "GRANT SELECT ON a, b GRANT SELECT ON c",
        "GRANT ALL ON TABLE billing.invoices",
        "GRANT SELECT ON ALL TABLES IN SCHEMA billing",
        "GRANT SELECT ON pg_authid",
        'GRANT SELECT ON "pg_catalog".pg_authid',
        "GRANT reporting",
        "GRANT pg_read_all_data",
        "ALTER ROLE x SUPERUSER",
        "ALTER SYSTEM SET x ON y",
        "DO x ON y",
        "grant select on x",
        "",
    ],
)  # fmt: skip
def test_y16_whatever_is_not_one_grant_to_our_group_is_refused_with_or_without_an_exception(statement: str) -> None:
    with pytest.raises(ValidationError, match=r"one GRANT says|no exception opens|no parameter"):
        entitlement(scopes=scoped(statement))


def test_it_stands_in_the_compiled_role_in_full_and_goes_to_the_group_only() -> None:
    compiled = compiled_entitlement(scopes=scoped(REFUND, "GRANT  USAGE  ON\tTYPE billing.money"))
    (text,) = json.loads(json.dumps(compiled.objects[0].data["creation_statements"]))
    group = f"sh-orders-read-{compiled.revision}-orders"
    assert f'\n    {REFUND} TO "{group}";\n    GRANT USAGE ON TYPE billing.money TO "{group}";' in text
    assert compiled.revision != compiled_entitlement(scopes=scoped(REFUND)).revision


def test_reviewers_and_approvers_read_it_word_for_word() -> None:
    asked = entitlement(scopes=scoped(REFUND))
    assert f"{REFUND}, word for word, in orders" in engines()["database"].reach(asked.scopes[0])


@pytest.mark.parametrize(
    ("expires", "rules"),
    [(None, ["raw-statement"]), ("2026-01-05", []), ("2026-01-04", ["expired-exception", "raw-statement"])],
)
def test_it_takes_an_exception_and_the_day_after_that_nothing_is_applied_or_granted_from_it(
    tmp_path: Path, expires: str | None, rules: list[str]
) -> None:
    """C4: what has an error is not in `compiled`, from which sync applies and control planes grant."""
    exceptions = (
        []
        if expires is None
        else [{"rule": "raw-statement", "owner": "team-shop@acme.example", "reason": "a function", "expires": expires}]
    )
    text = json.dumps(document(scopes=scoped(REFUND), exceptions=exceptions))
    (tmp_path / "orders-read.yaml").write_text(text.replace(f'"{expires}"', str(expires)), encoding="utf-8")
    found = review(tmp_path, LAYOUT, engines(), today=TODAY)
    assert sorted(problem.rule for problem in found.problems) == rules
    assert len(found.compiled) == (0 if rules else 1)
