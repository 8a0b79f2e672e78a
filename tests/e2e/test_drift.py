"""Drift on a real server: whatever somebody changes behind our back is seen, and said what it means."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from controlplane.dev.postgres import PostgreSQL
from controlplane.dev.process import until
from controlplane.engines.dialects.postgresql import PostgresqlOptions
from controlplane.incident.cuts import Seen
from controlplane.keys.files import generate
from controlplane.model.canonical import JsonObject
from controlplane.model.drift import Code, Finding
from controlplane.model.errors import CanaryFailedError, FrozenError, LostRaceError, VaultRefusedError
from controlplane.model.event import Kind
from controlplane.model.grant import State
from controlplane.model.plan import Action, Compiled
from controlplane.settings import DriftSettings, Settings
from controlplane.sync.apply import ApplySync
from controlplane.sync.ours import Origin
from controlplane.sync.plan import PlanSync
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.real import RealPlane
from controlplane.vault.client import VaultClient, part
from controlplane.vault.roles import VaultRoles
from controlplane.wiring.errands import drift_finder
from controlplane.wiring.identities import identity_client
from controlplane.wiring.plane import wire
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

MANAGER = "vdr_manager"


@pytest.fixture(scope="module")
def owner(postgres: PostgreSQL) -> Generator[psycopg.Connection]:
    with psycopg.connect(postgres.owner.reveal(), dbname="orders", autocommit=True) as owner:
        yield owner
        owner.execute("DROP OWNED BY vdr_manager")
        owner.execute("DROP ROLE vdr_manager")


@pytest.fixture(scope="module")
def plane(owner: psycopg.Connection, planes: Callable[..., RealPlane], postgres: PostgreSQL) -> RealPlane:
    plane = planes("vdr", "database")
    password = RandomIds().new("pw")
    statement = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}")
    owner.execute(statement.format(sql.Identifier(MANAGER), sql.Literal(password)))
    owner.execute("GRANT pg_signal_backend TO vdr_manager")
    owner.execute("GRANT pg_read_all_stats TO vdr_manager WITH ADMIN OPTION")
    owner.execute("GRANT USAGE ON SCHEMA sales TO vdr_manager WITH GRANT OPTION")
    owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA sales TO vdr_manager WITH GRANT OPTION")
    owner.execute("GRANT CONNECT ON DATABASE orders TO vdr_manager WITH GRANT OPTION")
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/orders?sslmode=disable"
    plane.root.write(
        f"{plane.mount('database')}/config/orders",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": url,
            "username": MANAGER,
            "password": password,
            "allowed_roles": ["vdr-*"],
            "password_authentication": "password",
        },
    )
    plane.bootstrap()
    plane.plane.worker.stop()
    plane.plane.close()
    target = PostgresqlOptions(port=postgres.port, database="orders", sslmode="disable")
    plane.settings = plane.settings.model_copy(update={"targets": {"orders": target}})
    plane.plane = wire(plane.settings)
    plane.plane.worker.start()
    return plane


@pytest.fixture(scope="module")
def settings(plane: RealPlane) -> Settings:
    return plane.settings


@contextmanager
def looking(settings: Settings, wanted: Sequence[Compiled]) -> Generator[Callable[[], set[Finding]]]:
    """Looks, as the identity that may only read; on a shared server others' policies are no news."""
    with drift_finder(settings) as find:
        before = set(find(wanted))
        yield lambda: set(find(wanted)) - before


def test_each_drift_is_named_and_repaired_y28(plane: RealPlane, settings: Settings, owner: psycopg.Connection) -> None:
    """C28: what somebody did by hand, one thing after the other, as the identity `drift` sees it."""
    (wanted,) = plane.entitle({"entitlement": "vdr-orders"})
    role, policy, login = wanted.objects
    root, mount, auth = plane.root, plane.mount("database"), plane.layout.auth_mount
    trust = part(root.read(f"auth/{auth}/config"), "data")
    strange: JsonObject = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["x"], "token_policies": ["x"]}
    theirs = 'path "database-vdr/creds/*" { capabilities = ["read"] }'
    broker = f"sys/policies/acl/{auth}-broker"
    strange_role: JsonObject = {"db_name": "orders", "creation_statements": ["SELECT 1"]}

    def written(path: str, body: JsonObject) -> Callable[[], object]:
        return lambda: root.write(path, body)

    deeds: list[tuple[Code, str, Callable[[], object], Callable[[], object]]] = [
        (
            Code.ROLE_CHANGED,
            role.path,
            written(role.path, {**role.data, "revocation_statements": ["SELECT 1"]}),
            written(role.path, role.data),
        ),
        (Code.POLICY_CHANGED, policy.path, written(policy.path, {"policy": theirs}), written(policy.path, policy.data)),
        (
            Code.LOGIN_CHANGED,
            login.path,
            written(login.path, {**login.data, "bound_claims": {}, "bound_subject": "me"}),
            written(login.path, login.data),
        ),
        (Code.OBJECT_MISSING, policy.path, lambda: root.delete(policy.path), written(policy.path, policy.data)),
        (
            Code.LOGIN_LEFT,
            f"auth/{auth}/role/vdr-vdr-orders-0a1b2c3d",
            written(f"auth/{auth}/role/vdr-vdr-orders-0a1b2c3d", strange),
            lambda: root.delete(f"auth/{auth}/role/vdr-vdr-orders-0a1b2c3d"),
        ),
        (
            Code.OBJECT_LEFT,
            f"{mount}/roles/vdr-gone-entitlement-0a1b2c3d-orders",
            written(f"{mount}/roles/vdr-gone-entitlement-0a1b2c3d-orders", strange_role),
            lambda: root.delete(f"{mount}/roles/vdr-gone-entitlement-0a1b2c3d-orders"),
        ),
        (
            Code.LOGIN_FOREIGN,
            f"auth/{auth}/role/admin",
            written(f"auth/{auth}/role/admin", strange),
            lambda: root.delete(f"auth/{auth}/role/admin"),
        ),
        (
            Code.ROLE_FOREIGN,
            f"{mount}/roles/vdr-admin",
            written(f"{mount}/roles/vdr-admin", strange_role),
            lambda: root.delete(f"{mount}/roles/vdr-admin"),
        ),
        (
            Code.POLICY_GRANTS,
            "sys/policies/acl/reporting",
            written("sys/policies/acl/reporting", {"policy": theirs}),
            lambda: root.delete("sys/policies/acl/reporting"),
        ),
        (
            Code.IDENTITY_CHANGED,
            broker,
            written(broker, {"policy": theirs}),
            plane.bootstrap,
        ),
        (
            Code.TRUST_CHANGED,
            f"auth/{auth}/config",
            written(
                f"auth/{auth}/config",
                {
                    "jwt_validation_pubkeys": [trust["jwt_validation_pubkeys"][0], generate().public_pem],  # pyright: ignore[reportOptionalSubscript, reportArgumentType, reportCallIssue, reportIndexIssue] # it is a list
                    "jwt_supported_algs": ["ES256"],
                },
            ),
            plane.bootstrap,
        ),
        (
            Code.CONNECTION_POWER,
            f"{mount}/config/orders",
            lambda: owner.execute("ALTER ROLE vdr_manager SUPERUSER"),
            lambda: owner.execute("ALTER ROLE vdr_manager NOSUPERUSER"),
        ),
        (
            Code.CONNECTION_POWER,
            f"{mount}/config/orders",
            lambda: owner.execute("GRANT pg_write_server_files TO vdr_manager"),
            lambda: owner.execute("REVOKE pg_write_server_files FROM vdr_manager"),
        ),
    ]
    with looking(settings, [wanted]) as news:
        assert news() == set()
        for code, path, spoil, mend in deeds:
            spoil()
            found = news()
            assert {(one.code, one.path) for one in found} == {(code, path)}, code
            assert all(one.meaning and one.repair for one in found)
            mend()
            assert news() == set(), code


def test_a_connection_that_points_elsewhere_or_is_gone_is_named(
    plane: RealPlane, settings: Settings, postgres: PostgreSQL
) -> None:
    """Vault revokes over the connection of now: logins at the old server live on."""
    (wanted,) = plane.entitle({"entitlement": "vdr-orders"})
    path = f"{plane.mount('database')}/config/orders"
    with looking(settings, [wanted]) as news:
        url = f"postgresql://{{{{username}}}}:{{{{password}}}}@%s:{postgres.port}/orders?sslmode=disable"
        plane.root.write(path, {"connection_url": url % "localhost"})
        (moved,) = news()
        assert (moved.code, moved.path) == (Code.CONNECTION_MOVED, path)
        assert "localhost, not 127.0.0.1" in moved.detail
        known = settings.model_copy(update={"drift": settings.drift.model_copy(update={"known": frozenset({path})})})
        with drift_finder(known) as find:
            assert not [one for one in find([wanted]) if one.path == path]
        plane.root.write(path, {"connection_url": url % "127.0.0.1"})
        assert news() == set()
    scope = {"name": "orders", "engine": "database", "connection": "absent", "privileges": ["select on table a.b"]}
    nobody = compiled_entitlement(plane.layout, entitlement="vdr-absent", scopes=[scope])
    with drift_finder(settings) as find:
        told = {one.code for one in find([wanted, nobody]) if "absent" in one.path}
    assert told == {Code.NOT_APPLIED, Code.CONNECTION_MISSING}


def test_what_was_granted_by_hand_to_a_group_role_is_named_y28(
    plane: RealPlane, settings: Settings, owner: psycopg.Connection
) -> None:
    """C28: every login of the revision has it, and nothing in Vault shows it."""
    (wanted,) = plane.entitle({"entitlement": "vdr-orders"})
    plane.finished(plane.grant("vdr-orders"))  # the first login makes the group
    group = f"vdr-vdr-orders-{wanted.revision}-orders"
    deeds = [
        ("SELECT ON sales.customers", "select on table sales.customers"),
        ("UPDATE (status) ON billing.invoices", "update (status) on table billing.invoices"),
        ("CREATE ON SCHEMA sales", "create on schema sales"),
        ("EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text)", "a right on function pg_ls_dir(text)"),
        ("pg_checkpoint", "membership in pg_checkpoint"),
    ]
    with looking(settings, [wanted]) as news:
        assert news() == set()
        for statement, _ in deeds:
            owner.execute(sql.SQL("GRANT " + statement + " TO {}").format(sql.Identifier(group)))  # pyright: ignore[reportArgumentType] # of this test
        seen = news()
        assert {one.code for one in seen} == {Code.GROUP_RIGHTS}
        assert {one.path for one in seen} == {f"orders/{group}"}
        assert {one.detail for one in seen} == {f"it has {told}, which vdr-orders does not say" for _, told in deeds}
        assert all("REVOKE" in one.repair for one in seen)
        for statement, _ in deeds:
            owner.execute(sql.SQL("REVOKE " + statement + " FROM {}").format(sql.Identifier(group)))  # pyright: ignore[reportArgumentType] # of this test
        assert news() == set()


def test_p8_in_strict_mode_the_worker_freezes_what_somebody_edited_and_thaws_what_was_mended_y28(
    plane: RealPlane, settings: Settings
) -> None:
    """C28: another replica looks; what is out goes on, and ends by what the role says now."""
    (wanted,) = plane.entitle({"entitlement": "vdr-orders"}, {"entitlement": "vdr-other"})[:1]
    role, before = wanted.objects[0], plane.plane.store.head()
    assert before is not None
    drift = DriftSettings(every=timedelta(seconds=1), strict=True)
    watching = wire(settings.model_copy(update={"drift": drift}))

    def frozen() -> bool:
        return [one.selection for one in plane.plane.store.freezes(active_at=SystemClock().now())] != []

    out = plane.grant("vdr-orders")
    plane.root.write(role.path, {**role.data, "revocation_statements": ["SELECT 1"]})
    watching.worker.start()
    try:
        assert until(frozen, timedelta(seconds=60))
        with pytest.raises(FrozenError):
            plane.grant("vdr-orders")
        plane.finished(plane.grant("vdr-other"))
        plane.root.write(role.path, role.data)
        assert until(lambda: not frozen(), timedelta(seconds=60))
        plane.finished(plane.grant("vdr-orders"))
        assert plane.stands(out).state is State.ACTIVE
    finally:
        watching.worker.stop()
        watching.close()
    plane.finished(out)
    told = [link.event.kind for link in plane.plane.store.links(after=before.seq)]
    assert [kind for kind in told if kind.startswith("selection.")] == [Kind.SELECTION_FROZEN, Kind.SELECTION_THAWED]


def test_a_plan_asks_vault_once_for_each_folder_and_each_object(plane: RealPlane, settings: Settings) -> None:
    names = ("vdr-one", "vdr-two", "vdr-three")
    wanted = plane.entitle(*({"entitlement": name} for name in names))
    calls: list[str] = []

    def note(path: str, *_: object) -> None:
        calls.append(path)

    with identity_client(settings.vault, settings.vault.sync) as client:  # pyright: ignore[reportArgumentType] # it is set
        client.transport.observe = note
        assert PlanSync(roles=VaultRoles(plane.layout, client), layout=plane.layout)(wanted).empty
    assert len(calls) == len(set(calls)) == 3 + 3 * len(names)


def test_c29_force_drain_cuts_what_is_out_of_the_old_revision_before_its_role_goes(
    plane: RealPlane, settings: Settings, postgres: PostgreSQL
) -> None:
    """Y27: as `sync apply --force-drain` does it; without it the old role stays as long as its login."""
    (old,) = plane.entitle({"entitlement": "vdr-orders"})
    login = plane.unwrap(plane.grant("vdr-orders"))

    def enters() -> bool:
        try:
            psycopg.connect(
                host="127.0.0.1",
                port=postgres.port,
                dbname="orders",
                user=login["username"],
                password=login["password"],
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    new = compiled_entitlement(plane.layout, entitlement="vdr-orders", ttl={"default": "2m", "max": "10m"})
    here = wire(settings)  # the plane's own worker does it: whoever applies only orders it
    with identity_client(settings.vault, settings.vault.sync) as client:  # pyright: ignore[reportArgumentType] # it is set
        roles = VaultRoles(plane.layout, client)
        plan = PlanSync(roles=roles, layout=plane.layout)
        assert len(ApplySync(roles=roles, plan=plan)([new], plan([new])).waiting) == 2
        assert enters()
        cut: list[Seen | None] = []

        def drain(where: Origin) -> bool:
            cut.append(here.drain("ann", where.entitlement, where.revision, incident="INC-1", reason="too wide"))
            return bool(cut[0] and cut[0].cut.ended_at)

        assert ApplySync(roles=roles, plan=plan, drain=drain)([new], plan([new])).done == {Action.RETIRE: 2}
        assert not enters()
        assert [one.progress.proved for one in cut if one is not None] == [True]
        assert not {item.path for item in old.objects} & set(roles.read(plane.layout))
    here.close()


def test_a_revision_whose_revocation_does_not_work_never_goes_live(
    plane: RealPlane, settings: Settings, owner: psycopg.Connection
) -> None:
    """C10, P3: with statements that end nothing Vault calls the canary gone, and PostgreSQL does not."""
    (old,) = plane.entitle({"entitlement": "vdr-orders"})
    new = compiled_entitlement(plane.layout, entitlement="vdr-orders", ttl={"default": "1m", "max": "10m"})
    role, *rest = new.objects
    broken = replace(role, data={**role.data, "revocation_statements": ["SELECT 1"]})
    here = wire(settings)
    with identity_client(settings.vault, settings.vault.sync) as client:  # pyright: ignore[reportArgumentType] # it is set
        roles = VaultRoles(plane.layout, client)
        plan = PlanSync(roles=roles, layout=plane.layout)
        apply = ApplySync(roles=roles, plan=plan, canary=replace(here.canary, within=timedelta(seconds=2)))
        bad = replace(new, objects=(broken, *rest))
        with pytest.raises(CanaryFailedError, match="is not gone"):
            apply([bad], plan([bad]))
        standing = roles.read(plane.layout)
        assert old.objects[-1].path in standing
        assert new.objects[-1].path not in standing
        # Repaired, the same revision goes live; what the first canary left is dropped, as its receipt will say.
        assert apply([new], plan([new])).done[Action.CREATE] == 1
        assert new.objects[-1].path in roles.read(plane.layout)
        left = here.store.grants(states=[State.REVOKING])
        assert [grant.subject for grant in left] == ["canary"]
        for grant in left:
            for lease in here.store.leases(grant.id):
                owner.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(lease.principal)))
                owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(lease.principal)))
        with suppress(LostRaceError):  # the worker was quicker
            here.canary.revoke(left[0])
        assert until(lambda: not here.store.grants(states=[State.REVOKING]), timedelta(seconds=90))
    here.close()


def test_whoever_looks_for_drift_can_write_nothing_and_sync_sees_less(plane: RealPlane, settings: Settings) -> None:
    """P7: the broker got no new power for it, and the identity that looks has none."""
    (wanted,) = plane.entitle({"entitlement": "vdr-orders"})
    role, policy, login = wanted.objects
    mount, auth = plane.mount("database"), plane.layout.auth_mount

    def refused(client: VaultClient, path: str, body: JsonObject) -> bool:
        try:
            client.write(path, body)
        except VaultRefusedError as error:
            return "403" in error.detail
        return False

    with identity_client(settings.vault, settings.vault.drift) as drift:  # pyright: ignore[reportArgumentType] # it is set
        for path in (role.path, policy.path, login.path, f"auth/{auth}/config", f"{mount}/config/orders"):
            assert refused(drift, path, {}), path
            with pytest.raises(VaultRefusedError):
                drift.delete(path)
        for path in ("sys/audit/file", f"{mount}/reset/orders", "auth/token/create", "sys/leases/revoke"):
            assert refused(drift, path, {"type": "file"}), path
        with pytest.raises(VaultRefusedError):
            drift.read(f"{mount}/creds/{role.path.rpartition('/')[2]}")
    with identity_client(settings.vault, settings.vault.broker) as broker:  # pyright: ignore[reportArgumentType] # it is set
        for path in (policy.path, login.path, f"{mount}/config/orders", "sys/audit"):
            with pytest.raises(VaultRefusedError):
                broker.read(path)
    less = settings.model_copy(update={"vault": settings.vault.model_copy(update={"drift": None})})
    with drift_finder(less) as find:
        unseen = {one.path for one in find([wanted]) if one.code is Code.NOT_SEEN}
    assert {"sys/audit", "database connections", "sys/policies/acl/*", f"auth/{auth}/config"} <= unseen
