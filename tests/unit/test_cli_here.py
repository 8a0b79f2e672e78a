"""Whoever applies where the control plane's settings are stands in its audit log: who, which commit, which plan."""

import getpass
import shutil
import subprocess
from pathlib import Path

import pytest

from controlplane.cli.here import applying
from controlplane.keys.files import load_or_create
from controlplane.model.errors import CanaryFailedError, ConfigurationError
from controlplane.model.event import Event, Kind
from controlplane.model.plan import Plan
from controlplane.settings import load
from controlplane.sync.plan import PlanSync
from controlplane.testing.clock import FakeClock
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.vault import FakeVault
from controlplane.wiring.plane import wire

ROLES = Path(__file__).parents[2] / "roles"
PLANS = PlanSync(roles=FakeVault(LAYOUT, FakeClock()).roles, layout=LAYOUT)
PLAN = PLANS([compiled_entitlement()])


@pytest.fixture
def roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Entitlements in a repository of their own, and a control plane's settings beside it."""
    for name in ("broker", "task"):
        (tmp_path / "keys").mkdir(mode=0o700, exist_ok=True)
        load_or_create(tmp_path / "keys" / f"{name}.pem")
    roles = Path(shutil.copytree(ROLES, tmp_path / "repository" / "roles"))
    configuration = tmp_path / "shorthold.toml"
    configuration.write_text(
        f"""\
roles = "{roles}"
store.url = "sqlite:///{tmp_path}/shorthold.db"
keys.directory = "{tmp_path}/keys"
vault.broker = {{mount = "shorthold-broker", role = "broker", key_file = "{tmp_path}/keys/broker.pem"}}
""",
        encoding="utf-8",
    )
    monkeypatch.setenv("SHORTHOLD_CONFIG", str(configuration))
    for step in (("init",), ("add", "."), ("commit", "--message", "Entitlements")):
        git(roles, *step)
    wire(load()).close()
    return roles


def git(where: Path, *words: str) -> str:
    someone = ("-c", "user.name=Ann", "-c", "user.email=ann@acme.example", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *someone, "-C", str(where), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def heard() -> list[Event]:
    plane = wire(load())
    try:
        return [link.event for link in plane.store.links() if link.event.kind.startswith("plan.")]
    finally:
        plane.close()


def apply(roles: Path, plan: Plan = PLAN) -> None:
    with applying(plan, roles, canary=False, cutting=None):
        """Nothing is written: this is about who is told of it."""


def test_y26_the_audit_log_hears_who_applies_which_plan_of_which_commit(roles: Path) -> None:
    apply(roles)
    commit = git(roles, "rev-parse", "HEAD")
    told = {"by": getpass.getuser(), "commit": commit, "digest": PLAN.digest}
    assert [(event.kind, dict(event.body)) for event in heard()] == [
        (Kind.PLAN_BEGUN, told),
        (Kind.PLAN_APPLIED, told),
    ]
    (roles / "orders-new.yaml").write_text("# not committed\n", encoding="utf-8")
    apply(roles)
    assert heard()[-1].body["commit"] == f"{commit}+"


def test_what_breaks_off_was_begun_and_not_applied(roles: Path) -> None:
    with pytest.raises(CanaryFailedError), applying(PLAN, roles, canary=False, cutting=None):
        raise CanaryFailedError("as the test wants it")
    assert [event.kind for event in heard()] == [Kind.PLAN_BEGUN]


def test_nothing_to_do_is_nothing_to_tell_and_who_demands_a_canary_gets_one_or_a_reason(
    roles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apply(roles, PLANS([]))
    assert heard() == []
    (roles.parents[1] / "keys" / "task.pem").unlink()
    with applying(PLAN, roles, canary=None, cutting=None) as here:
        assert here.canary is None
    assert "the audit log here does not hear of it, for the task key is not here" in capsys.readouterr().err
    with (
        pytest.raises(ConfigurationError, match="no canary can be tried here"),
        applying(PLAN, roles, canary=True, cutting=None),
    ):
        pytest.fail("it went on")
