"""`shorthold policy`: cases are tried by the real Cedar, and only what is as expected passes (C7)."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controlplane.cli.policy import policy
from controlplane.cli.sync import sync
from controlplane.policies import schema

ROLES = Path(__file__).parents[2] / "roles"
CASE = """\
cases:
  - name: what was reviewed is permitted
    given: {{entitlement: orders-read, issuer: dev, subject: someone{given}}}
    expect: {{{expect}}}
"""


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHORTHOLD_CONFIG", raising=False)
    return Path(shutil.copytree(ROLES, tmp_path / "roles"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(policy, list(arguments))


def only(roles: Path, text: str) -> None:
    for file in (roles / "policies" / "tests").iterdir():
        file.unlink()
    (roles / "policies" / "tests" / "own.yaml").write_text(text)


def test_the_shipped_cases_pass_and_show_what_every_shipped_policy_decides(roles: Path) -> None:
    del roles
    result = run("test", "-o", "json")
    assert result.exit_code == 0, result.output
    tried = json.loads(result.stdout)
    assert all(case["ok"] for case in tried)
    assert {case["decision"] for case in tried} == {"allow", "deny"}
    assert "No case shows" not in result.stderr
    assert tried[0]["reasons"][0]["detail"].startswith("reviewed-entitlement: ")


def test_each_set_of_policies_has_a_revision_and_a_broken_one_none(roles: Path) -> None:
    def revisions() -> dict[str, str]:
        result = run("revisions", "-o", "json")
        assert result.exit_code == 0, result.output
        return {row["entitlement"]: row["revision"] for row in json.loads(result.stdout)}

    shipped = revisions()
    slices = roles / "policies" / "entitlements"
    assert shipped.keys() == {"every other", *(file.stem for file in slices.glob("*.cedar"))}
    slices.mkdir(exist_ok=True)
    (slices / "invoice-status.cedar").write_text("permit")
    assert revisions() == {**shipped, "invoice-status": "broken"}
    assert "cannot be read" in str(run("revisions", "elsewhere").exception)


def test_a_table_shows_what_was_decided_by_which_policy(roles: Path) -> None:
    result = run("test", str(roles / "policies"))
    assert result.exit_code == 0
    assert "ok      deny      pii-never-inline" in result.stdout
    assert "9 cases, 0 not as expected." in result.stderr


@pytest.mark.parametrize(
    ("given", "expect", "said"),
    [
        ("", "decision: deny", "allow instead of deny"),
        ("", "decision: allow, policy: another-one", "decided by reviewed-entitlement instead of another-one"),
        (", with: {labels: {env: prod}}", "decision: allow", "deny instead of allow"),
        (", address: 'fe80::1%eth0'", "decision: deny", "cannot be held against this request"),
    ],
)
def test_a_case_that_is_not_as_expected_fails(roles: Path, given: str, expect: str, said: str) -> None:
    only(roles, CASE.format(given=given, expect=expect))
    result = run("test")
    assert result.exit_code == 1
    assert "FAILED: " in result.stdout
    assert said in result.stdout
    assert "1 case, 1 not as expected." in result.stderr


def test_a_no_that_comes_from_broken_policies_proves_nothing(roles: Path) -> None:
    only(roles, CASE.format(given="", expect="decision: deny"))
    (roles / "policies" / "more.cedar").write_text("forbid (principal")
    result = run("test")
    assert result.exit_code == 1
    assert "policies/more.cedar:1:1: error: " in result.stderr
    assert "FAILED" in result.stdout


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("cases: []\n", "invalid-value"),
        ("cases:\n  - name: x\n    name: y\n", "duplicate-key"),
        (CASE.format(given=", adress: 10.0.0.1", expect="decision: allow"), "unknown-key"),
        (CASE.format(given=", at: 2026-01-05T10:00:00", expect="decision: allow"), "invalid-value"),
        (CASE.format(given=", ttl: 300", expect="decision: allow"), "invalid-value"),
        (CASE.format(given=", with: {risk: hihg}", expect="decision: allow"), "invalid-value"),
        (CASE.format(given="", expect="decision: maybe"), "invalid-value"),
        (CASE.format(given="", expect="decision: allow").replace("orders-read", "orders-write"), "unknown-entitlement"),
    ],
)
def test_a_case_that_cannot_be_read_is_an_error_with_its_place(roles: Path, text: str, rule: str) -> None:
    only(roles, text)
    result = run("test")
    assert result.exit_code == 1, result.output
    assert f"[{rule}]" in result.stderr
    assert "policies/tests/own.yaml:" in result.stderr


def test_no_cases_are_no_success(roles: Path) -> None:
    only(roles, CASE.format(given="", expect="decision: allow"))
    (roles / "policies" / "tests" / "own.yaml").unlink()
    assert run("test").exit_code == 1


def test_a_case_may_say_everything_that_a_policy_sees(roles: Path) -> None:
    (roles / "policies" / "more.cedar").write_text(
        '@id("sees-it-all") @reason("r") forbid (principal, action, resource) when {\n'
        'principal.issuer == "github" && principal has person && principal.person == "ann"\n'
        '&& principal.hasTag("k/n") && principal.getTag("k/n") == ["x"]\n'
        '&& context.intent == "prepare-report" && context.task == "T-9" && context.reason == "why"\n'
        '&& context.ttl == duration("90s") && context.at == datetime("2026-02-01T03:04:05Z")\n'
        '&& context has environment && context.environment == "prod"\n'
        '&& context has address && context.address == ip("10.1.2.3") };\n'
    )
    given = (
        ", person: ann, claims: {k: {n: x}}, intent: prepare-report, task: T-9, reason: why, ttl: 90s"
        ', at: "2026-02-01T04:04:05+01:00", environment: prod, address: 10.1.2.3'
    )
    text = CASE.format(given=given, expect="decision: deny, policy: sees-it-all").replace("dev", "github")
    only(roles, text)
    result = run("test")
    assert result.exit_code == 0, result.output


def test_init_writes_what_was_shipped_and_leaves_what_is_there(tmp_path: Path) -> None:
    directory = tmp_path / "roles" / "policies"
    assert run("init", str(directory)).exit_code == 0
    assert (directory / "guardrails.cedar").read_text() == (ROLES / "policies" / "guardrails.cedar").read_text()
    assert (directory / schema.FILE).read_text() == schema.text()
    (directory / "guardrails.cedar").write_text("// mine\n")
    again = run("init", str(directory))
    assert (again.exit_code, (directory / "guardrails.cedar").read_text()) == (0, "// mine\n")
    assert "has them already" in again.stderr


def test_the_schema_is_printed_or_written(roles: Path) -> None:
    assert run("schema").stdout == schema.text()
    (roles / "policies" / schema.FILE).write_text("old")
    assert run("schema", "--write").exit_code == 0
    assert (roles / "policies" / schema.FILE).read_text() == schema.text()


def test_sync_lint_shows_what_is_wrong_with_policies_with_its_place(roles: Path) -> None:
    (roles / "policies" / "more.cedar").write_text(
        '// mine\n@id("too-much") @reason("r") permit (principal, action, resource);\n'
    )
    (roles / "policies" / "entitlements" / "no-such.cedar").write_text("")
    result = CliRunner().invoke(sync, ["lint"])
    assert result.exit_code == 1
    assert "policies/more.cedar:2:1: error: this permits everything" in result.stdout
    assert "[permits-everything]" in result.stdout
    assert "[unknown-entitlement]" in result.stdout
    assert "6 sound entitlements, 4 sound policies, 2 errors, 0 warnings." in result.stderr
    machine = CliRunner().invoke(sync, ["lint", "--roles", str(roles), "-o", "json"])
    assert [one["rule"] for one in json.loads(machine.stdout)] == ["unknown-entitlement", "permits-everything"]


def test_sync_lint_says_that_there_are_no_policies(roles: Path) -> None:
    shutil.rmtree(roles / "policies")
    result = CliRunner().invoke(sync, ["lint"])
    assert result.exit_code == 1
    assert "[no-policies]" in result.stdout
