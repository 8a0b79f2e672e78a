"""Drift: what is said of what was seen, once, with what it means and what to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from controlplane.audit.record import Record
from controlplane.model.access import Role, Standing
from controlplane.model.canonical import JsonObject
from controlplane.model.drift import MEANING, Code, Connection, Finding, Seen
from controlplane.model.errors import FrozenError, VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import State, TaskId
from controlplane.model.plan import Compiled, ObjectKind, VaultObject
from controlplane.sync.drift import Expected, findings
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.strict import FreezeDrifted
from controlplane.sync.watch import WatchDrift
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.plane import FakePlane

NOW = compiled_entitlement()
ELSEWHERE = {"name": "it", "engine": "database", "connection": "other", "privileges": ["select on table a.b"]}
OLD = compiled_entitlement(ttl={"default": "5m", "max": "10m"})
SOUND: JsonObject = {"jwt_validation_pubkeys": ["KEY"], "jwks_url": "", "oidc_discovery_url": ""}


def standing(*compiled: Compiled) -> dict[str, VaultObject]:
    return {item.path: item for one in compiled for item in one.objects}


def found(seen: Seen, *wanted: Compiled, expected: Expected | None = None) -> set[tuple[Code, str]]:
    return {(one.code, one.path) for one in findings(LAYOUT, wanted, seen, expected or Expected())}


def test_every_code_says_what_it_means_for_credentials() -> None:
    assert set(MEANING) == set(Code)


def test_what_stands_as_compiled_is_no_drift() -> None:
    seen = Seen(objects=standing(NOW), policies={"default": ""}, trust={"shorthold": SOUND}, audit_devices=1)
    assert found(seen, NOW) == set()


def test_a_revision_of_which_nothing_stands_was_never_applied_and_one_taken_apart_lost_something() -> None:
    assert found(Seen(objects={}), NOW) == {(Code.NOT_APPLIED, NOW.objects[-1].path)}
    for item in NOW.objects:
        rest = {path: other for path, other in standing(NOW).items() if path != item.path}
        assert found(Seen(objects=rest), NOW) == {(Code.OBJECT_MISSING, item.path)}


def test_an_old_revision_that_waits_for_its_leases_is_no_drift_but_its_login_is() -> None:
    role, policy, login = OLD.objects
    waiting = {role.path: role, policy.path: policy}
    leases = {role.path: 1}
    assert found(Seen(objects=standing(NOW) | waiting, leases=leases), NOW) == set()
    assert found(Seen(objects=standing(NOW) | waiting), NOW) == {
        (Code.OBJECT_LEFT, role.path),
        (Code.OBJECT_LEFT, policy.path),
    }
    assert found(Seen(objects=standing(NOW, OLD), leases=leases), NOW) == {(Code.LOGIN_LEFT, login.path)}


@pytest.mark.parametrize("kind", list(ObjectKind))
def test_an_edit_is_named_by_what_was_edited(kind: ObjectKind) -> None:
    there = standing(NOW)
    (item,) = (item for item in there.values() if item.kind is kind)
    there[item.path] = replace(item, data={**item.data, "policy": "{}", "max_ttl": 99, "token_period": 99})
    ((code, path),) = found(Seen(objects=there), NOW)
    assert (code.value.removesuffix("-changed"), path) == (
        {"secret-role": "role", "jwt-role": "login"}.get(kind, kind.value),
        item.path,
    )


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({**SOUND, "jwt_validation_pubkeys": ["KEY", "THEIRS"]}, "2 keys"),
        ({**SOUND, "jwt_validation_pubkeys": ["THEIRS"]}, "another key"),
        ({**SOUND, "jwt_validation_pubkeys": []}, "0 keys"),
        ({**SOUND, "jwks_url": "https://theirs.example"}, "jwks_url"),
    ],
)
def test_whom_else_a_mount_of_ours_trusts_is_told(config: JsonObject, why: str) -> None:
    seen = Seen(objects={}, trust={"shorthold": config})
    (told,) = findings(LAYOUT, (), seen, Expected(keys={"shorthold": "KEY\n"}))
    assert told.code is Code.TRUST_CHANGED
    assert why in told.detail


def test_an_audit_device_that_is_off_is_told_and_one_that_nobody_may_see_is_not_called_off() -> None:
    assert found(Seen(objects={}, audit_devices=0)) == {(Code.AUDIT_OFF, "sys/audit")}
    unseen = Seen(objects={}, unseen={"sys/audit": "permission denied"})
    assert found(unseen) == {(Code.NOT_SEEN, "sys/audit")}


def test_a_policy_that_nobody_understands_may_allow_anything_and_ours_are_held_to_the_letter() -> None:
    policies = {"odd": "path <<", "admin": 'path "*" {capabilities = ["sudo", "read"]}', "shorthold-broker": "path <<"}
    seen = Seen(objects=standing(NOW), policies=policies)
    own = frozenset({"shorthold-broker"})
    odd, admin = (Code.POLICY_UNREAD, "sys/policies/acl/odd"), (Code.POLICY_GRANTS, "sys/policies/acl/admin")
    assert found(seen, NOW, expected=Expected(own_policies=own)) == {odd, admin}
    known = Expected(own_policies=own, known=frozenset({"sys/policies/acl/admin"}))
    assert found(seen, NOW, expected=known) == {odd}


def test_what_vault_does_not_tell_of_a_connection_is_not_held_against_it() -> None:
    connection = Connection(
        path="database/config/orders", name="orders", user="m", host=None, port=None, database="orders"
    )
    expected = Expected(targets={"orders": ("db", 5432, "orders")})
    assert found(Seen(objects={}, connections=(connection,)), expected=expected) == set()
    moved = replace(connection, host="evil")
    assert found(Seen(objects={}, connections=(moved,)), expected=expected) == {
        (Code.CONNECTION_MOVED, "database/config/orders")
    }
    assert found(Seen(objects=standing(NOW), connections=()), NOW) == {
        (Code.CONNECTION_MISSING, "database/config/orders")
    }


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane()


@dataclass
class Looks:
    """What a round finds; it fails as it is told."""

    finds: Sequence[Finding] = ()
    fails: bool = False
    counted: dict[Code, int] = field(default_factory=dict[Code, int])
    problems: Sequence[Problem] = ()

    def __call__(self, wanted: Sequence[Compiled]) -> Sequence[Finding]:
        del wanted
        if self.fails:
            raise VaultUnavailableError("gone")
        return self.finds

    def count(self, found: Mapping[Code, int]) -> None:
        self.counted = dict(found)

    def get(self, name: str) -> Compiled | None:
        del name
        return None

    def all(self) -> Sequence[Compiled]:
        return []


def finding(path: str) -> Finding:
    return Finding(code=Code.ROLE_CHANGED, path=path, detail="edited", repair="apply")


def watching(plane: FakePlane, looks: Looks) -> WatchDrift:
    return WatchDrift(
        clock=plane.clock,
        record=Record(clock=plane.clock, ids=plane.ids),
        store=plane.store,
        entitlements=looks,
        find=looks,
        every=timedelta(minutes=5),
        count=looks.count,
    )


def told(plane: FakePlane) -> list[tuple[str, object]]:
    kinds = {Kind.DRIFT_FOUND, Kind.DRIFT_ENDED}
    return [(link.event.kind, link.event.body["path"]) for link in plane.store.links() if link.event.kind in kinds]


def test_the_worker_tells_what_is_new_and_what_has_ended_once_y28(plane: FakePlane) -> None:
    looks = Looks(finds=[finding("a"), finding("b")])
    watch = watching(plane, looks)
    assert watch()
    assert told(plane) == [("drift.found", "a"), ("drift.found", "b")]
    assert looks.counted == {Code.ROLE_CHANGED: 2}
    assert not watch(), "it is not time yet"
    plane.clock.advance(timedelta(minutes=6))
    looks.finds = [finding("b")]
    assert watch()
    assert told(plane)[2:] == [("drift.ended", "a")]
    event = next(link.event for link in plane.store.links() if link.event.kind is Kind.DRIFT_FOUND)
    assert event.body["meaning"] == MEANING[Code.ROLE_CHANGED]
    assert event.body["repair"] == "apply"


def test_a_look_that_fails_ends_its_round_and_forgets_nothing(plane: FakePlane) -> None:
    looks = Looks(finds=[finding("a")])
    watch = watching(plane, looks)
    watch()
    plane.clock.advance(timedelta(minutes=6))
    looks.fails = True
    with pytest.raises(VaultUnavailableError):
        watch()
    plane.clock.advance(timedelta(minutes=6))
    looks.fails = False
    assert watch()
    assert told(plane) == [("drift.found", "a")]


def test_of_several_replicas_the_one_that_looked_last_has_the_figure(plane: FakePlane) -> None:
    first, second = Looks(finds=[finding("a")]), Looks(finds=[finding("a")])
    one, other = watching(plane, first), watching(plane, second)
    assert one()
    assert not other()
    plane.clock.advance(timedelta(minutes=6))
    assert other()
    assert not one()
    assert (first.counted, second.counted) == ({}, {Code.ROLE_CHANGED: 1})


def test_while_a_file_is_broken_nobody_knows_what_is_wanted(plane: FakePlane) -> None:
    looks = Looks(finds=[finding("a")], problems=[Problem("a.yaml", 1, 1, "unknown-key", "no", Severity.ERROR)])
    assert not watching(plane, looks)()
    assert told(plane) == []


def strictly(plane: FakePlane, looks: Looks) -> WatchDrift:
    freeze = FreezeDrifted(
        clock=plane.clock, ids=plane.ids, record=Record(clock=plane.clock, ids=plane.ids), store=plane.store
    )
    return replace(watching(plane, looks), strict=freeze, entitlements=Catalogued(looks, plane))


@dataclass
class Catalogued:
    """The entitlements of a plane, and the problems that a test wants."""

    looks: Looks
    plane: FakePlane

    @property
    def problems(self) -> Sequence[Problem]:
        return self.looks.problems

    def get(self, name: str) -> Compiled | None:
        return self.plane.entitlements.get(name)

    def all(self) -> Sequence[Compiled]:
        return self.plane.entitlements.all()


@pytest.mark.parametrize(
    ("code", "path"),
    [
        (Code.ROLE_CHANGED, NOW.objects[0].path),
        (Code.POLICY_CHANGED, NOW.objects[1].path),
        (Code.LOGIN_CHANGED, NOW.objects[2].path),
        (Code.CONNECTION_MOVED, "database/config/orders"),
        (Code.CONNECTION_POWER, "database/config/orders"),
        (Code.GROUP_RIGHTS, f"orders/sh-orders-read-{NOW.revision}-orders"),
    ],
)
def test_in_strict_mode_nothing_is_granted_of_what_has_drifted_until_it_has_not_y28(code: Code, path: str) -> None:
    """P8: a freeze, which beats everything at every replica; what is out goes on."""
    plane = FakePlane(NOW, compiled_entitlement(entitlement="orders-other", scopes=[ELSEWHERE]))
    out = plane.ask().grant
    looks = Looks(finds=[replace(finding(path), code=code)])
    watch = strictly(plane, looks)
    assert watch()
    with pytest.raises(FrozenError, match="was not granted"):
        plane.ask(task=TaskId("T-2"))
    plane.ask(entitlement="orders-other", task=TaskId("T-3"))
    assert plane.grant(out.id).state is State.ACTIVE
    plane.clock.advance(timedelta(minutes=6))
    assert watch()
    assert len(plane.store.freezes()) == 1, "one is enough"
    plane.clock.advance(timedelta(minutes=6))
    looks.finds = []
    assert watch()
    plane.ask(task=TaskId("T-4"))
    (frozen,), (thawed,) = plane.events(Kind.SELECTION_FROZEN), plane.events(Kind.SELECTION_THAWED)
    assert frozen.body["reason"] == f"drift: {code} {path}"
    assert (frozen.body["issuer"], thawed.body["reason"]) == ("shorthold-drift", "the drift has ended")
    assert "its platform team has been told" in str(frozen.body["message"])


def test_what_could_not_be_looked_at_is_not_thawed() -> None:
    plane = FakePlane(NOW)
    rights = replace(finding(f"orders/sh-orders-read-{NOW.revision}-orders"), code=Code.GROUP_RIGHTS)
    looks = Looks(finds=[rights])
    watch = strictly(plane, looks)
    for finds in ([rights], [replace(finding("group roles at orders"), code=Code.NOT_SEEN)]):
        looks.finds = finds
        assert watch()
        with pytest.raises(FrozenError):
            plane.ask()
        plane.clock.advance(timedelta(minutes=6))
    looks.finds = []
    assert watch()
    plane.ask(task=TaskId("T-2"))


def test_what_people_froze_is_not_thawed_and_what_concerns_no_entitlement_freezes_none() -> None:
    plane = FakePlane(NOW)
    responder = Standing(roles=frozenset({Role.RESPONDER}))
    plane.freeze(plane.agent("ann"), responder, "entitlement=orders-read", reason="INC-7", message="stop")
    watch = strictly(plane, Looks(finds=[replace(finding("sys/audit"), code=Code.AUDIT_OFF)]))
    assert watch()
    assert [freeze.subject for freeze in plane.store.freezes(active_at=plane.clock.now())] == ["ann"]
