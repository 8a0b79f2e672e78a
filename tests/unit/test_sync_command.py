"""`shorthold sync` without a Vault: what it says of files, of plans, and of mistakes."""

import json
import re
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from controlplane.cli.plan_view import plan_data, print_plan, print_radii
from controlplane.cli.sync import sync
from controlplane.engines import engines
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import (
    BrokenEntitlementsError,
    ConfigurationError,
    StalePlanError,
    TokenRefusedError,
    VaultRefusedError,
)
from controlplane.model.plan import Action, Compiled, Layout, Plan, VaultObject
from controlplane.sync import planfile
from controlplane.sync.diff import difference
from controlplane.sync.radius import Point, radius
from controlplane.sync.review import Review, review
from controlplane.sync.schema import FILE, text
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement

ROLES = Path(__file__).parents[2] / "roles"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAO_ADDR", "http://127.0.0.1:9")  # nobody is there
    return Path(shutil.copytree(ROLES, tmp_path / "roles"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(sync, list(arguments))


def break_two(directory: Path) -> None:
    for name in ("orders-read", "invoice-status"):
        file = directory / f"{name}.yaml"
        file.write_text(file.read_text() + "rsik: low\n")


def test_lint_shows_every_error_with_its_place_and_exits_1(directory: Path) -> None:
    break_two(directory)
    result = run("lint")
    assert result.exit_code == 1
    places = re.findall(
        r"^(\S+\.yaml):\d+:1: error: there is no key rsik here \[unknown-key\]$", result.stdout, re.MULTILINE
    )
    assert places == ["invoice-status.yaml", "orders-read.yaml"]
    assert "4 sound entitlements, 4 sound policies, 2 errors, 0 warnings" in result.stderr


def test_lint_says_the_same_to_machines(directory: Path) -> None:
    break_two(directory)
    result = run("lint", "-o", "json")
    assert result.exit_code == 1
    assert [(one["file"], one["rule"], one["severity"]) for one in json.loads(result.stdout)] == [
        ("invoice-status.yaml", "unknown-key", "error"),
        ("orders-read.yaml", "unknown-key", "error"),
    ]


def test_a_warning_is_said_and_is_no_failure(directory: Path) -> None:
    file = directory / "orders-read.yaml"
    file.write_text(file.read_text() + "context: {networks: [0.0.0.0/0]}\n")
    result = run("lint", "--roles", str(directory))
    assert result.exit_code == 0
    assert "warning: 0.0.0.0/0 is every address there is" in result.stdout


def test_an_issuer_that_the_settings_do_not_have_is_a_warning_where_there_are_settings(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHORTHOLD_CONFIG", raising=False)
    assert "unknown-issuer" not in run("lint").stdout
    (directory.parent / "shorthold.toml").write_text(
        '[[issuers]]\nname = "other"\nurl = "https://other.example"\naudiences = ["shorthold"]\n'
    )
    result = run("lint")
    assert result.exit_code == 0
    assert "warning: the settings have no issuer dev, only: other [unknown-issuer]" in result.stdout


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_nothing_is_planned_or_applied_while_one_file_is_broken(directory: Path, command: str) -> None:
    """To Vault, an entitlement that is left out is one to retire. No Vault is asked: none would answer."""
    break_two(directory)
    error = run(command).exception
    assert isinstance(error, BrokenEntitlementsError)
    assert "invoice-status.yaml:" in error.detail
    assert "orders-read.yaml:" in error.detail


def test_drift_that_nobody_could_look_for_is_no_drift(directory: Path) -> None:
    """As with Terraform's detailed exit code: 1 is an error, 2 says that something was found."""
    break_two(directory)
    result = run("drift")
    assert result.exit_code == 1
    assert "broken-entitlements" in result.stderr


def test_schema_prints_what_is_shipped_and_writes_it_where_it_belongs(directory: Path) -> None:
    assert run("schema").stdout == text(engines())
    (directory / FILE).unlink()
    assert run("schema", "--write").exit_code == 0
    assert (directory / FILE).read_text() == text(engines())


def whole(directory: Path) -> Review:
    return review(directory, LAYOUT, engines(), today=date(2026, 1, 1))


def made(*, present: dict[str, VaultObject] | None = None) -> Plan:
    return difference(LAYOUT, [compiled_entitlement()], present or {}, leases={})


def test_the_documented_schema_fits_every_plan_and_names_every_field() -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs" / "plan.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    old = compiled_entitlement(ttl={"default": "5m", "max": "10m"})
    entitlements = [item.entitlement for item in whole(ROLES).compiled]
    radii = [radius(entitlement, engines()) for entitlement in entitlements]
    for present in ({}, {item.path: item for item in old.objects}):
        data = plan_data(made(present=present), radii)
        validator: Any = Draft202012Validator(schema)  # jsonschema's own types are partly unknown
        validator.validate(data)
        assert {*data, "server"} == set(schema["properties"])  # the command adds what the server is
        for name in ("changes", "blast_radius"):
            fields = schema["properties"][name]["items"]["properties"]
            assert all(set(one) == set(fields) for one in json.loads(json.dumps(data[name])))
        assert set(json.loads(json.dumps(data["summary"]))) == {str(action) for action in Action}
    replaced = json.loads(json.dumps(plan_data(made(present={item.path: item for item in old.objects}), radii)))
    assert {one["replaces"] for one in replaced["changes"]} == {None, *(item.path for item in old.objects)}


def test_what_is_enforced_by_vault_by_the_broker_and_by_nobody_is_told_apart() -> None:
    """C6, C7: what Vault holds survives us."""
    exact = radius(compiled_entitlement().entitlement, engines()).controls
    assert (exact["eligibility"], exact["scope"], exact["revocation"]) == (Point.ENGINE,) * 3
    assert (exact["approval"], exact["window"]) == (Point.NONE,) * 2
    wide = compiled_entitlement(
        eligibility=[{"issuer": "dev", "subject": {"glob": "repo:acme/*:ref:refs/heads/main"}}],
        context={"networks": ["10.0.0.0/8"]},
    )
    told = radius(wide.entitlement, engines()).controls
    assert (told["eligibility"], told["network"]) == (Point.BROKER,) * 2


def test_the_blast_radius_is_a_table_of_every_entitlement(capsys: pytest.CaptureFixture[str]) -> None:
    """C4."""
    print_radii([radius(item.entitlement, engines()) for item in whole(ROLES).compiled])
    shown = capsys.readouterr().out
    for item in whole(ROLES).compiled:
        assert item.entitlement.name in shown
    assert "may read (country, id, name) of sales.customers in orders" in shown
    assert "provable" in shown


def test_a_plan_comes_out_of_its_file_as_it_went_in(tmp_path: Path) -> None:
    plan = made()
    planfile.write(tmp_path / "it.plan", plan)
    assert planfile.read(tmp_path / "it.plan") == plan


def test_a_plan_file_that_was_edited_is_refused_y25(tmp_path: Path) -> None:
    file = tmp_path / "it.plan"
    planfile.write(file, made())
    file.write_text(file.read_text().replace('"token_ttl": 300', '"token_ttl": 301'))
    with pytest.raises(StalePlanError):
        planfile.read(file)


@pytest.mark.parametrize("content", ["", "{}", '{"shorthold_plan": 2, "plan": {}}', "\x00"])
def test_what_is_no_plan_is_said_so(tmp_path: Path, content: str) -> None:
    file = tmp_path / "it.plan"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match="no plan"):
        planfile.read(file)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        planfile.read(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        planfile.write(tmp_path / "nowhere" / "it.plan", made())


def test_a_plan_shows_signs_fields_and_the_blast_radius_and_no_colours_off_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = compiled_entitlement()
    role, policy, login = one.objects
    edited = VaultObject(kind=login.kind, path=login.path, entitlement="x", data={**login.data, "token_ttl": 7})
    old = compiled_entitlement(entitlement="orders-old").objects[2]
    plan = made(present={edited.path: edited, old.path: old})
    print_plan(plan, [radius(one.entitlement, engines())])
    shown = capsys.readouterr().out
    assert f"+ secret-role {role.path}\n" in shown
    assert f"+ policy {policy.path}\n" in shown
    assert f"~ jwt-role {login.path}\n    # somebody changed token_ttl in Vault" in shown
    assert "    ~ token_ttl: 7 -> 300\n" in shown
    assert f"- jwt-role {old.path}\n" in shown
    assert "    what  may read sales.orders in orders\n" in shown
    assert "    who   dev repo:acme/agent:ref:refs/heads/main\n" in shown
    assert shown.endswith("Plan: 2 to create, 1 to repair, 1 to retire.\n")
    assert "\x1b" not in shown


def test_what_others_wrote_into_vault_cannot_speak_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    one = compiled_entitlement()
    login = one.objects[2]
    tricky: dict[str, JsonValue] = {
        **login.data,
        "bound_subject": "\x1b[2J\u202e[bold]",
        "claim_mappings": {"\x07": "x"},
    }
    edited = VaultObject(kind=login.kind, path=login.path, entitlement="x", data=tricky)
    print_plan(made(present={edited.path: edited}), [])
    shown = capsys.readouterr().out
    assert "[bold]" in shown
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}


class Standing:
    """Fits the port Roles, with what somebody once applied."""

    def __init__(self, *compiled: Compiled) -> None:
        self.objects = {item.path: item for one in compiled for item in one.objects}

    def read(self, layout: Layout) -> dict[str, VaultObject]:
        del layout
        return dict(self.objects)

    def leases_under(self, role: VaultObject) -> int:
        del role
        return 0

    def write(self, item: VaultObject) -> None:
        self.objects[item.path] = item

    def delete(self, item: VaultObject) -> None:
        del self.objects[item.path]


def replacing() -> tuple[Compiled, Compiled, Plan]:
    old = compiled_entitlement(ttl={"default": "5m", "max": "15m"})
    new = compiled_entitlement(ttl={"default": "5m", "max": "14m"})
    return old, new, difference(LAYOUT, [new], Standing(old).objects, leases={})


def test_a_changed_entitlement_is_shown_as_what_changed_and_not_as_something_new(
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new, plan = replacing()
    print_plan(plan, [])
    shown = capsys.readouterr().out
    login = f"+ jwt-role auth/shorthold/role/{new.naming.base}\n    # in place of revision {old.revision}\n"
    assert f"{login}    ~ token_explicit_max_ttl: 900 -> 840\n    ~ token_max_ttl: 900 -> 840\n\n" in shown
    assert f"# in place of revision {old.revision}, with nothing new but the name" in shown
    assert f"# revision {new.revision} replaces it: nobody logs in here any more" in shown
    assert "no entitlement wants it" not in shown


def test_an_entitlement_that_nobody_wants_any_more_is_said_so() -> None:
    plan = difference(LAYOUT, [], Standing(compiled_entitlement()).objects, leases={})
    assert all("no entitlement wants it" in change.why for change in plan.changes)


@pytest.mark.parametrize("command", [["plan"], ["apply", "--yes"]])
def test_an_empty_directory_empties_vault_only_if_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (tmp_path / "none").mkdir()
    standing = Standing(compiled_entitlement())
    monkeypatch.setattr("controlplane.cli.sync._vault", lambda: standing)
    result = run(*command, "--roles", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert "3 objects of ours in Vault would go" in result.stderr
    assert "--prune" in result.stderr
    assert len(standing.objects) == 3
    assert run(*command, "--roles", str(tmp_path / "none"), "--prune").exit_code == 0
    assert len(standing.objects) == (3 if command == ["plan"] else 0)


def test_the_hint_after_a_plan_names_what_the_apply_needs(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standing = Standing()
    monkeypatch.setattr("controlplane.cli.sync._vault", lambda: standing)
    result = run("plan", "--roles", str(directory), "--out", "it.plan")
    assert f"`shorthold sync apply it.plan --roles {directory}` does exactly this" in result.stderr
    assert run("apply", "it.plan", "--roles", str(directory)).exit_code == 0
    assert standing.objects


def test_a_file_where_a_directory_is_asked_for_is_wrong_use(directory: Path) -> None:
    result = run("lint", "--roles", str(directory / "orders-read.yaml"))
    assert result.exit_code == 2
    assert "is a file" in result.stderr


def test_a_refused_token_of_one_s_own_is_what_the_hint_speaks_of(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(Standing):
        def read(self, layout: Layout) -> dict[str, VaultObject]:
            del layout
            raise VaultRefusedError("LIST database/roles: permission denied")

    assert directory.is_dir()
    monkeypatch.setattr("controlplane.cli.sync._vault", Refusing)
    monkeypatch.setenv("BAO_TOKEN", "bad")
    error = run("plan").exception
    assert isinstance(error, TokenRefusedError)
    assert "BAO_TOKEN" in error.hint
    monkeypatch.delenv("BAO_TOKEN")
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    assert type(run("plan").exception) is VaultRefusedError


def test_lint_tells_every_reader_the_same(directory: Path) -> None:
    (directory / "orders-read.yaml").write_text("entitlement: orders-read\n# password: hunter2hunter2\n")
    told = {reader: run("lint", "--format", reader) for reader in ("text", "json", "github", "sarif")}
    assert {result.exit_code for result in told.values()} == {1}
    assert all("secret-in-file" in result.stdout for result in told.values())
    assert all("hunter2" not in result.output for result in told.values())
    assert "::error file=roles/orders-read.yaml,line=2,col=3,title=secret-in-file::" in told["github"].stdout
    assert json.loads(told["sarif"].stdout)["runs"][0]["results"][0]["ruleId"] == "secret-in-file"


def test_lint_finds_a_way_around_a_tier_between_two_files_of_a_directory_c4(directory: Path) -> None:
    file = directory / "orders-read.yaml"
    both = ["select on table billing.invoices", "insert on table billing.refunds"]
    file.write_text(re.sub(r"privileges:\n(      - .*\n)+", f"privileges: {json.dumps(both)}\n", file.read_text()))
    result = run("lint")
    assert result.exit_code == 0
    assert "orders-read.yaml:6:7: warning: this gives all that orders-refund keeps for tier high" in result.stdout
    assert run("lint", "--strict").exit_code == 1


def test_lint_asks_a_store_that_there_is_and_makes_none(directory: Path) -> None:
    result = run("lint", "--unused", "90")
    assert result.exit_code == 2
    assert "names none that there is" in result.stderr
    assert list(directory.parent.glob("*.db")) == []
    assert run("lint", "--unused", "0").exit_code == 2
