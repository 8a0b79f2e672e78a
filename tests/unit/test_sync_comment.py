"""A plan as a comment on a pull request: what changes and what it opens, and nobody else's words but as code."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from controlplane.cli.sync import sync
from controlplane.engines import engines
from controlplane.model.errors import VaultUnavailableError
from controlplane.model.plan import Plan, VaultObject
from controlplane.sync.comment import MARK, comment
from controlplane.sync.diff import difference
from controlplane.sync.radius import radius
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement

ROLES = Path(__file__).parents[2] / "roles"
ONE = compiled_entitlement()
LOGIN = ONE.objects[2]


def made(*present: VaultObject) -> Plan:
    return difference(LAYOUT, [ONE], {item.path: item for item in present}, leases={})


def told(plan: Plan) -> str:
    return comment(plan, [radius(ONE.entitlement, engines())])


def test_a_comment_says_what_changes_where_why_and_what_it_opens() -> None:
    edited = VaultObject(kind=LOGIN.kind, path=LOGIN.path, entitlement="x", data={**LOGIN.data, "token_ttl": 7})
    text = told(made(edited))
    assert text.splitlines()[0] == MARK
    assert "### Shorthold: 2 to create, 1 to repair\n" in text
    assert (
        f"| repair | jwt-role | ` {LOGIN.path} ` | ` somebody changed token_ttl in Vault since it was applied ` |"
        in text
    )
    assert "- what: ` may read sales.orders in orders `\n" in text
    assert "- who: ` dev repo:acme/agent:ref:refs/heads/main `\n" in text
    assert made(edited).digest in text


def test_nothing_to_do_is_one_line() -> None:
    assert told(made(*ONE.objects)).splitlines() == [MARK, "### Shorthold: nothing to change in Vault"]


def test_no_value_of_a_field_is_in_a_comment() -> None:
    """Values of somebody else's edit may be anything."""
    edited = VaultObject(
        kind=LOGIN.kind, path=LOGIN.path, entitlement="x", data={**LOGIN.data, "bound_subject": "hunter2"}
    )
    assert "hunter2" not in told(made(edited))
    assert "CREATE ROLE" not in told(made())
    assert "{{password}}" not in told(made())


@pytest.mark.parametrize(
    "nasty",
    ["`x` @everyone", "a | b", "<img src=x onerror=alert(1)>", "``` @ann", "x\n\n# title", "[a](https://e)", "\x1b[2J"],
)
def test_what_somebody_wrote_is_code_and_stays_in_its_cell(nasty: str) -> None:
    change = replace(made().changes[0], why=nasty)
    (row,) = [
        line for line in told(Plan(changes=(change,), digest="0" * 64)).splitlines() if line.startswith("| create")
    ]
    cell = row.split(" | ", 3)[3].removesuffix(" |")
    fence = cell[: len(cell) - len(cell.lstrip("`"))]
    inside = cell.removeprefix(fence).removesuffix(fence)
    assert fence
    assert fence not in inside
    assert "|" not in inside.replace("\\|", "")
    assert inside.isprintable()


def test_a_comment_of_a_huge_plan_still_fits() -> None:
    change = replace(made().changes[0], why="x" * 1000)
    text = told(Plan(changes=(change,) * 5000, digest="0" * 64))
    assert len(text) < 65_536
    assert "… and 4900 more" in text


def test_with_detailed_exitcode_2_means_changes_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        def read(self, layout: object) -> None:
            del layout
            raise VaultUnavailableError("nobody answers")

    monkeypatch.setattr("controlplane.cli.sync._vault", Silent)
    result = CliRunner().invoke(sync, ["plan", "--roles", str(ROLES), "--detailed-exitcode"])
    assert result.exit_code == 1
    assert "vault-unavailable" in result.stderr
    assert isinstance(CliRunner().invoke(sync, ["plan", "--roles", str(ROLES)]).exception, VaultUnavailableError)
