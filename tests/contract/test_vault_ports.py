"""One suite for the ports Logins, Leases and Roles: the fake and a real OpenBao with a real PostgreSQL answer alike."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql

from controlplane.dev.openbao import OpenBao
from controlplane.dev.postgres import PostgreSQL
from controlplane.engines import engines, scope_models
from controlplane.keys.files import SigningKey, generate
from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.entitlement import Entitlement
from controlplane.model.errors import NotSyncedError, VaultRefusedError, VaultUnavailableError
from controlplane.model.grant import GrantId
from controlplane.model.lease import Accessor, Ask, LeaseId, Response, TaskToken
from controlplane.model.orphan import Epoch
from controlplane.model.plan import Compiled, Layout, ObjectKind
from controlplane.model.secret import Secret
from controlplane.ports import Answer, Census, Leases, Logins, Roles
from controlplane.sync.compile import compiled
from controlplane.sync.diff import difference
from controlplane.testing.vault import FakeVault
from controlplane.vault.bootstrap import Trust, bootstrap
from controlplane.vault.census import VaultCensus, epoch_path
from controlplane.vault.client import Server, VaultClient, part
from controlplane.vault.leases import VaultLeases
from controlplane.vault.logins import VaultLogins
from controlplane.vault.policies import IDENTITIES
from controlplane.vault.roles import VaultRoles
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

LAYOUT = Layout(prefix="vp", auth_mount="shorthold-vp", mounts={"database": "database", "pki": "pki"})
CONNECTION = "vp-orders"
MANAGER = "vp_manager"
DOCUMENT = {
    "entitlement": "orders-read",
    "owner": "team-sales@acme.example",
    "purpose": "Read orders.",
    "intents": ["answer-question"],
    "risk": "low",
    "eligibility": [{"issuer": "dev", "subject": {"glob": "agent:*"}}],
    "scopes": [
        {
            "name": "orders",
            "engine": "database",
            "connection": CONNECTION,
            "privileges": ["select on table sales.orders"],
        },
        {"name": "client", "engine": "pki", "common_name": "checkout.agents.acme.example"},
    ],
    "ttl": {"default": "5m", "max": "10m"},
}
ids = RandomIds()
clock = SystemClock()


def entitlement(**changes: object) -> Compiled:
    document = Entitlement.model_validate(DOCUMENT | changes, context={"engines": scope_models()})
    return compiled(document, LAYOUT, engines())


@dataclass
class World:
    """What the suite needs of either server."""

    logins: Logins
    leases: Leases
    roles: Roles
    census: Census
    key: SigningKey
    alive: Callable[[str], bool]
    break_target: Callable[[], None]
    mend_target: Callable[[], None]
    compiled: Compiled
    broker: VaultClient | None = None

    @property
    def ask(self) -> Ask:
        return self._ask(0)

    @property
    def certificate(self) -> Ask:
        return self._ask(1)

    def _ask(self, number: int) -> Ask:
        scope = self.compiled.entitlement.scopes[number]
        return engines()[scope.engine].ask(scope, self.compiled.naming, ttl=timedelta(minutes=2))

    def grant(self) -> GrantId:
        return GrantId(ids.new("gr"))

    def assertion(self, grant: GrantId, **changes: Any) -> Secret:
        now = int(clock.now().timestamp())
        claims: dict[str, Any] = {
            "aud": LAYOUT.audience,
            "sub": "wl_00112233445566778899aabbccddeeff",
            "jti": grant,
            "iat": now,
            "nbf": now,
            "exp": now + 10,
            "grant": grant,
            "issuer": "dev",
            "subject": "agent:a",
            "workload": "dev agent:a",
            "entitlement": self.compiled.entitlement.name,
            "revision": self.compiled.revision,
            "task": "T-1",
            "intent": "answer-question",
        }
        return self.key.sign(claims | changes)

    def login(self, grant: GrantId | None = None) -> TaskToken:
        return self.logins.login(self.compiled.naming.base, self.assertion(grant or self.grant()))

    def issue(self) -> tuple[TaskToken, Response, str]:
        token = self.login()
        response = self.logins.read(token.token, self.ask)
        username = response.data["username"]
        assert isinstance(username, Secret)
        return token, response, username.reveal()


@pytest.fixture
def fake() -> World:
    vault = FakeVault(LAYOUT, clock)

    def target(*, down: bool) -> None:
        vault.target.down = down

    return World(
        logins=vault.logins,
        leases=vault.leases,
        roles=vault.roles,
        census=vault.census,
        key=generate(),
        alive=lambda name: name in vault.target.users,
        break_target=lambda: target(down=True),
        mend_target=lambda: target(down=False),
        compiled=entitlement(),
    )


@pytest.fixture(scope="module")
def real(openbao: OpenBao, postgres: PostgreSQL, vault_root: VaultClient) -> Generator[World]:
    keys = {name: generate() for name in ("task", *IDENTITIES)}
    prepare_target(postgres, vault_root)
    trust = Trust(**{f"{name}_key_pem": key.public_pem for name, key in keys.items()})
    bootstrap(vault_root, LAYOUT, trust, apply=True)
    server = Server(openbao.addr)
    sessions = {
        name: JwtSession(server, f"{LAYOUT.auth_mount}-{name}", name, keys[name], clock=clock, ids=ids)
        for name in ("broker", "sync")
    }
    broker, sync = (VaultClient(server, sessions[name]) for name in ("broker", "sync"))
    owner = psycopg.connect(postgres.owner.reveal(), autocommit=True)

    def alive(name: str) -> bool:
        return owner.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is not None

    def manager(attribute: str) -> None:
        owner.execute(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(MANAGER), sql.SQL(attribute)))  # pyright: ignore[reportArgumentType] # one of two words of ours

    logins = VaultLogins(LAYOUT, broker)
    yield World(
        logins=logins,
        leases=VaultLeases(broker),
        roles=VaultRoles(LAYOUT, sync),
        census=VaultCensus(LAYOUT, broker, logins),
        key=keys["task"],
        alive=alive,
        break_target=lambda: manager("NOCREATEROLE"),
        mend_target=lambda: manager("CREATEROLE"),
        compiled=entitlement(),
        broker=broker,
    )
    owner.close()
    for closing in (broker, sync, *sessions.values()):
        closing.close()


def prepare_target(postgres: PostgreSQL, root: VaultClient) -> None:
    """A manager and a connection of this suite's own, so that breaking them breaks nobody else's tests."""
    password = ids.new("pw")
    with psycopg.connect(postgres.owner.reveal(), dbname="orders", autocommit=True) as owner:
        owner.execute(
            sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(
                sql.Identifier(MANAGER), sql.Literal(password)
            )
        )
        for privilege in (
            "GRANT pg_signal_backend TO vp_manager",
            "GRANT pg_read_all_stats TO vp_manager WITH ADMIN OPTION",
            "GRANT CONNECT ON DATABASE orders TO vp_manager WITH GRANT OPTION",
            "GRANT USAGE ON SCHEMA sales TO vp_manager WITH GRANT OPTION",
            "GRANT SELECT ON ALL TABLES IN SCHEMA sales TO vp_manager WITH GRANT OPTION",
        ):
            owner.execute(privilege)
    mounted = part(root.read("sys/mounts"), "data")
    for mount in ("database", "pki"):
        if f"{mount}/" not in mounted:
            root.write(f"sys/mounts/{mount}", {"type": mount})
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/orders?sslmode=disable"
    root.write(
        f"database/config/{CONNECTION}",
        {
            "plugin_name": "postgresql-database-plugin",
            "connection_url": url,
            "username": MANAGER,
            "password": password,
            "allowed_roles": ["vp-*"],
            "password_authentication": "scram-sha-256",
        },
    )
    if not root.list("pki/issuers"):
        root.write("pki/root/generate/internal", {"common_name": "test root", "key_type": "ec", "key_bits": 256})


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.servers)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    chosen: World = request.getfixturevalue(request.param)
    for item in chosen.compiled.objects:
        chosen.roles.write(item)
    yield chosen
    chosen.mend_target()


def until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.01)
    return True


def about(span: timedelta, expected: timedelta) -> bool:
    return expected - timedelta(seconds=30) <= span <= expected


def test_a_task_token_is_exactly_what_its_role_says(world: World) -> None:
    grant = world.grant()
    token = world.login(grant)
    facts = world.logins.facts(token.accessor)
    assert facts is not None
    assert facts.accessor == token.accessor
    assert facts.kind == "service"
    assert facts.orphan
    assert facts.policies == {world.compiled.naming.base}
    assert about(facts.ttl, timedelta(minutes=5))
    assert facts.explicit_max_ttl == timedelta(minutes=10)
    assert facts.period == timedelta(0)
    assert facts.num_uses == 0
    assert facts.metadata == {
        "role": world.compiled.naming.base,
        "grant": grant,
        "issuer": "dev",
        "subject": "agent:a",
        "entitlement": "orders-read",
        "revision": world.compiled.revision,
        "task": "T-1",
        "intent": "answer-question",
    }


def test_a_role_that_is_not_synced_is_told_apart_from_a_refusal(world: World) -> None:
    with pytest.raises(NotSyncedError):
        world.logins.login("vp-orders-read-00000000", world.assertion(world.grant()))


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "shorthold-vp"},
        {"workload": "dev stranger:a"},
        {"workload": "other agent:a"},
        {"entitlement": "orders-refund"},
        {"revision": "00000000"},
        {"exp": 1_700_000_000, "iat": 1_700_000_000 - 10, "nbf": 1_700_000_000 - 10},
    ],
    ids="-".join,
)
def test_vault_itself_refuses_what_the_role_does_not_name(world: World, changes: dict[str, Any]) -> None:
    grant = world.grant()
    with pytest.raises(VaultRefusedError):
        world.logins.login(world.compiled.naming.base, world.assertion(grant, **changes))
    assert world.logins.accessors_of(grant) == []


def test_a_broken_assertion_is_refused(world: World) -> None:
    with pytest.raises(VaultRefusedError):
        world.logins.login(world.compiled.naming.base, Secret("not-a-jwt"))


def test_an_unknown_accessor_has_no_facts(world: World) -> None:
    assert world.logins.facts(Accessor("unknown0000000000000000x")) is None
    assert world.leases.revoke_token(Accessor("unknown0000000000000000x")) is Answer.UNKNOWN_TOKEN


def test_a_token_is_found_by_its_grant(world: World) -> None:
    grant = world.grant()
    token, another = world.login(grant), world.login()
    assert world.logins.accessors_of(grant) == [token.accessor]
    assert another.accessor not in world.logins.accessors_of(grant)
    assert world.logins.accessors_of(world.grant()) == []


def test_a_credential_has_a_lease_and_every_text_in_it_is_secret(world: World) -> None:
    _, response, username = world.issue()
    assert response.lease.startswith(f"{world.ask.path}/")
    assert response.lease_ttl == timedelta(minutes=5)
    assert isinstance(response.data["password"], Secret)
    assert "password" in response.data
    assert username not in repr(response)
    assert world.alive(username)
    facts = world.leases.facts(response.lease)
    assert facts is not None
    assert facts.id == response.lease
    assert about(facts.ttl, timedelta(minutes=5))
    assert abs(facts.issued_at - clock.now()) < timedelta(seconds=30)
    assert facts.revoke_error is None
    assert response.lease in world.leases.under(world.ask.path)


def test_a_certificate_has_a_lease_too(world: World) -> None:
    token = world.login()
    response = world.logins.read(token.token, world.certificate)
    assert response.lease.startswith(f"{world.certificate.path}/")
    assert about(response.lease_ttl, timedelta(minutes=2))
    for name in ("certificate", "private_key", "serial_number", "issuing_ca"):
        assert isinstance(response.data[name], Secret)
    assert world.leases.under(world.certificate.path).count(response.lease) == 1
    world.leases.revoke(response.lease)
    assert world.leases.facts(response.lease) is None


def test_a_task_token_reads_nothing_but_its_own_scopes(world: World) -> None:
    token = world.login()
    for path in ("database/creds/vp-orders-read-00000000-orders", f"database/creds/vp-prober-{CONNECTION}"):
        with pytest.raises(VaultRefusedError):
            world.logins.read(token.token, Ask(path=path, body=None))
        assert world.leases.under(path) == []


def test_a_token_that_is_none_reads_nothing(world: World) -> None:
    before = list(world.leases.under(world.ask.path))
    with pytest.raises(VaultRefusedError):
        world.logins.read(Secret("s.nobody"), world.ask)
    assert list(world.leases.under(world.ask.path)) == before


def test_a_wrapping_token_shows_one_use_until_it_is_opened_or_revoked(world: World) -> None:
    token = world.login()
    wrapped = world.logins.wrap(token.token, {"orders": {"password": Secret("p")}}, timedelta(seconds=30))
    assert wrapped.ttl == timedelta(seconds=30)
    facts = world.logins.facts(wrapped.accessor)
    assert facts is not None
    assert facts.num_uses == 1
    assert facts.policies == {"response-wrapping"}
    world.leases.revoke_token(token.accessor)
    assert until(lambda: world.logins.facts(token.accessor) is None)
    assert world.logins.facts(wrapped.accessor) is not None, "it does not hang from the task token"
    world.leases.revoke_token(wrapped.accessor)
    assert until(lambda: world.logins.facts(wrapped.accessor) is None)


def test_revoking_a_token_ends_everything_that_hangs_from_it(world: World) -> None:
    token, response, username = world.issue()
    assert world.leases.revoke_token(token.accessor) is Answer.REQUESTED
    assert until(lambda: world.leases.facts(response.lease) is None)
    assert until(lambda: world.logins.facts(token.accessor) is None)
    assert response.lease not in world.leases.under(world.ask.path)
    assert not world.alive(username)
    assert world.leases.revoke_token(token.accessor) is Answer.UNKNOWN_TOKEN
    with pytest.raises(VaultRefusedError):
        world.logins.read(token.token, world.ask)


def test_revoking_a_lease_waits_for_the_target_and_can_be_repeated(world: World) -> None:
    token, response, username = world.issue()
    world.leases.revoke(response.lease)
    assert not world.alive(username)
    assert world.leases.facts(response.lease) is None
    world.leases.revoke(response.lease)
    assert world.logins.facts(token.accessor) is not None, "the token lives on"


def test_asking_for_the_end_of_a_lease_ends_it_a_little_later_and_can_be_repeated(world: World) -> None:
    _, response, username = world.issue()
    world.leases.ask_to_revoke(response.lease)
    assert until(lambda: world.leases.facts(response.lease) is None, 60)
    assert not world.alive(username)
    world.leases.ask_to_revoke(response.lease)


def test_revoking_a_lease_that_never_was_is_fine(world: World) -> None:
    world.leases.revoke(LeaseId(f"{world.ask.path}/never0000000000000000000"))


def test_a_target_that_resists_is_a_refusal_and_the_lease_stays(world: World) -> None:
    _, response, username = world.issue()
    world.break_target()
    with pytest.raises(VaultRefusedError):
        world.leases.revoke(response.lease)
    assert world.leases.facts(response.lease) is not None
    assert world.alive(username)
    world.mend_target()
    world.leases.revoke(response.lease)
    assert world.leases.facts(response.lease) is None
    assert not world.alive(username)


def test_a_revocation_that_was_asked_for_and_failed_shows_no_time_left(world: World) -> None:
    token, response, username = world.issue()
    world.break_target()
    assert world.leases.revoke_token(token.accessor) is Answer.REQUESTED

    def over() -> bool:
        facts = world.leases.facts(response.lease)
        assert facts is not None, "it must not be reported as gone"
        return facts.ttl <= timedelta(0)

    assert until(over)
    assert world.alive(username)
    world.mend_target()
    world.leases.revoke(response.lease)
    assert world.leases.facts(response.lease) is None
    assert not world.alive(username)


@pytest.mark.parametrize("minutes", [1, 8])
def test_renewing_moves_the_end_sooner_or_later(world: World, minutes: int) -> None:
    token, response, _ = world.issue()
    world.leases.renew(token.accessor, [response.lease], timedelta(minutes=minutes))
    assert ends(world, token, response, timedelta(minutes=minutes))


def test_renewing_never_passes_the_maximum(world: World) -> None:
    token, response, _ = world.issue()
    world.leases.renew(token.accessor, [response.lease], timedelta(hours=5))
    assert ends(world, token, response, timedelta(minutes=10))


def ends(world: World, token: TaskToken, response: Response, span: timedelta) -> bool:
    facts, lease = world.logins.facts(token.accessor), world.leases.facts(response.lease)
    assert facts is not None
    assert lease is not None
    return about(facts.ttl, span) and about(lease.ttl, span)


def test_extending_moves_leases_and_token_to_the_same_later_end(world: World) -> None:
    token, response, _ = world.issue()
    world.leases.extend(token.accessor, [response.lease], timedelta(minutes=8))
    assert ends(world, token, response, timedelta(minutes=8))
    facts = world.leases.facts(response.lease)
    assert facts is not None
    assert facts.renewable


def test_extending_past_the_maximum_is_refused_and_never_given(world: World) -> None:
    token, response, _ = world.issue()
    with pytest.raises(VaultRefusedError):
        world.leases.extend(token.accessor, [response.lease], timedelta(hours=5))
    facts = world.logins.facts(token.accessor)
    assert facts is not None
    assert facts.ttl <= timedelta(minutes=10)


def test_extending_breaks_off_before_the_token_which_ends_everything_as_it_would_have(world: World) -> None:
    """P2: the token moves last."""
    token, response, _ = world.issue()
    before = world.logins.facts(token.accessor)
    world.break_target()
    with pytest.raises((VaultRefusedError, VaultUnavailableError)):
        world.leases.extend(token.accessor, [response.lease], timedelta(minutes=8))
    after = world.logins.facts(token.accessor)
    world.mend_target()
    assert before is not None
    assert after is not None
    assert after.ttl <= before.ttl


def test_extending_what_has_ended_is_refused(world: World) -> None:
    token, response, _ = world.issue()
    world.leases.revoke_token(token.accessor)
    assert until(lambda: world.leases.facts(response.lease) is None)
    for leases in ([response.lease], []):
        with pytest.raises(VaultRefusedError):
            world.leases.extend(token.accessor, leases, timedelta(minutes=1))


def test_renewing_what_has_ended_is_refused(world: World) -> None:
    token, response, _ = world.issue()
    world.leases.revoke_token(token.accessor)
    assert until(lambda: world.leases.facts(response.lease) is None)
    with pytest.raises(VaultRefusedError):
        world.leases.renew(token.accessor, [response.lease], timedelta(minutes=1))


def test_what_was_compiled_and_written_reads_back_without_a_difference(world: World) -> None:
    present = world.roles.read(LAYOUT)
    assert set(present) == {item.path for item in world.compiled.objects}
    assert {item.entitlement for item in present.values()} == {"orders-read"}
    plan = difference(LAYOUT, [world.compiled], present, leases={})
    assert plan.changes == ()


def test_writing_twice_changes_nothing(world: World) -> None:
    before = world.roles.read(LAYOUT)
    for item in world.compiled.objects:
        world.roles.write(item)
    assert world.roles.read(LAYOUT) == before


def test_an_edit_in_vault_is_seen(world: World) -> None:
    role = next(item for item in world.compiled.objects if item.kind is ObjectKind.JWT_ROLE)
    world.roles.write(replace(role, data={**role.data, "token_ttl": 599}))
    (change,) = difference(LAYOUT, [world.compiled], world.roles.read(LAYOUT), leases={}).changes
    assert change.path == role.path
    assert change.before is not None
    assert change.before["token_ttl"] == 599


def test_deleting_can_be_repeated(world: World) -> None:
    for item in world.compiled.objects:
        world.roles.delete(item)
        world.roles.delete(item)
    assert world.roles.read(LAYOUT) == {}


def test_leases_are_counted_where_they_hang(world: World) -> None:
    secret_roles = [item for item in world.compiled.objects if item.kind is ObjectKind.SECRET_ROLE]
    before = {item.path: world.roles.leases_under(item) for item in secret_roles}
    token = world.login()
    made = [world.logins.read(token.token, ask) for ask in (world.ask, world.certificate)]
    assert {item.path: world.roles.leases_under(item) - before[item.path] for item in secret_roles} == dict.fromkeys(
        before, 1
    )
    assert all(
        world.roles.leases_under(item) == 0
        for item in world.compiled.objects
        if item.kind is not ObjectKind.SECRET_ROLE
    )
    for response in made:
        world.leases.revoke(response.lease)
    assert {item.path: world.roles.leases_under(item) for item in secret_roles} == before


def known(*accessors: Accessor) -> Callable[[Sequence[Accessor]], frozenset[Accessor]]:
    return lambda some: frozenset(some) & frozenset(accessors)


def test_a_survey_shows_the_task_tokens_that_nobody_knows_and_no_others(world: World) -> None:
    """G12, G17."""
    mine, grant = world.login(), world.grant()
    other = world.login(grant)
    survey = world.census.survey(known(mine.accessor))
    assert {mine.accessor, other.accessor} <= survey.listed
    (found,) = [token for token in survey.tokens if token.accessor == other.accessor]
    assert found.metadata["grant"] == grant
    assert mine.accessor not in {token.accessor for token in survey.tokens}
    world.leases.revoke_token(other.accessor)
    assert until(lambda: other.accessor not in {token.accessor for token in world.census.survey(known()).tokens})
    assert mine.accessor in {token.accessor for token in world.census.survey(known()).tokens}


def test_places_are_the_paths_of_ours_under_which_leases_hang(world: World) -> None:
    token = world.login()
    made = [world.logins.read(token.token, ask) for ask in (world.ask, world.certificate)]
    assert {world.ask.path, world.certificate.path} <= set(world.census.places())
    for response in made:
        world.leases.revoke(response.lease)
    assert until(lambda: not {world.ask.path} & set(world.census.places()) or bool(world.leases.under(world.ask.path)))


def test_the_epoch_is_what_was_noted_last(world: World) -> None:
    for seq in (1, 2**40):
        world.census.note(Epoch(seq=seq, mac="a" * 64))
        assert world.census.epoch() == Epoch(seq=seq, mac="a" * 64)


@pytest.mark.servers
def test_what_is_no_epoch_is_never_taken_for_one_or_for_none(real: World, vault_root: VaultClient) -> None:
    for wrong in ({"seq": "x", "mac": "a" * 64}, {"seq": "1"}, {"seq": "-1", "mac": "a" * 64}, {"other": "1"}):
        vault_root.write(epoch_path(LAYOUT), {"metadata": dict[str, JsonValue](wrong)})
        with pytest.raises(VaultUnavailableError):
            real.census.epoch()
    real.census.note(Epoch(seq=1, mac="a" * 64))


@pytest.mark.servers
def test_a_survey_takes_a_few_at_a_time_and_all_in_turn(real: World, vault_root: VaultClient) -> None:
    for item in real.compiled.objects:
        real.roles.write(item)
    wanted = {real.login().accessor for _ in range(5)}
    census = VaultCensus(LAYOUT, vault_root, VaultLogins(LAYOUT, vault_root), looks=7)
    seen: set[Accessor] = set()
    for _ in range(len(census.survey(known()).listed) // 2 + 3):
        looked = census.survey(known()).tokens
        assert len(looked) <= 7
        seen |= {token.accessor for token in looked}
        if wanted <= seen:
            break
    assert wanted <= seen


@pytest.mark.servers
def test_the_broker_may_write_nothing_of_the_epoch_but_its_metadata(real: World) -> None:
    """P7: an entity with a policy, or an alias, would be somebody."""
    broker = real.broker
    assert broker is not None
    other: JsonObject = {"metadata": {"a": "b"}}
    bodies: tuple[JsonObject, ...] = (
        {"policies": ["root"]},
        {"disabled": False},
        {"name": "x"},
        {**other, "policies": []},
    )
    for body in bodies:
        with pytest.raises(VaultRefusedError, match="permission denied"):
            broker.write(epoch_path(LAYOUT), body)
    for path in ("identity/entity", "identity/entity-alias", "identity/entity/name/another"):
        with pytest.raises(VaultRefusedError):
            broker.write(path, other)
    with pytest.raises(VaultRefusedError):
        broker.delete(epoch_path(LAYOUT))


@pytest.mark.servers
def test_renewing_moves_the_database_users_own_deadline(real: World, postgres: PostgreSQL) -> None:
    """P2: the target's clock follows Vault's, five seconds behind."""
    for item in real.compiled.objects:
        real.roles.write(item)
    token, response, username = real.issue()
    with psycopg.connect(postgres.owner.reveal(), autocommit=True) as owner:
        for minutes in (1, 8, 2):
            real.leases.renew(token.accessor, [response.lease], timedelta(minutes=minutes))
            row = owner.execute("SELECT rolvaliduntil - now() FROM pg_roles WHERE rolname = %s", (username,)).fetchone()
            assert row is not None
            assert timedelta(0) <= row[0] - timedelta(minutes=minutes) + timedelta(seconds=1) <= timedelta(seconds=7)
        real.leases.extend(token.accessor, [response.lease], timedelta(minutes=9))
        row = owner.execute("SELECT rolvaliduntil - now() FROM pg_roles WHERE rolname = %s", (username,)).fetchone()
        assert row is not None
        assert timedelta(0) <= row[0] - timedelta(minutes=9) + timedelta(seconds=1) <= timedelta(seconds=7)


@pytest.mark.servers
def test_a_wrapping_token_that_was_opened_is_gone_or_shows_no_use_left(real: World, openbao: OpenBao) -> None:
    for item in real.compiled.objects:
        real.roles.write(item)
    token = real.login()
    wrapped = real.logins.wrap(token.token, {"orders": {"password": Secret("p")}}, timedelta(seconds=30))
    agent = VaultClient(Server(openbao.addr), lambda: wrapped.token)
    assert part(agent.write("sys/wrapping/unwrap", {}), "data") == {"orders": {"password": "p"}}
    facts = real.logins.facts(wrapped.accessor)
    assert facts is None or facts.num_uses < 0
    assert until(lambda: real.logins.facts(wrapped.accessor) is None)
    with pytest.raises(VaultRefusedError):
        agent.write("sys/wrapping/unwrap", {})
    agent.close()


def test_a_lost_answer_leaves_what_was_made() -> None:
    vault = FakeVault(LAYOUT, clock)
    made = entitlement()
    for item in made.objects:
        vault.roles.write(item)
    world = World(vault.logins, vault.leases, vault.roles, vault.census, generate(), lambda _: True, print, print, made)
    grant = world.grant()
    vault.faults.lose_login = True
    with pytest.raises(VaultUnavailableError):
        world.login(grant)
    (accessor,) = vault.logins.accessors_of(grant)
    token = world.login()
    vault.faults.lose_read = True
    with pytest.raises(VaultUnavailableError):
        vault.logins.read(token.token, world.ask)
    assert len(vault.leases.under(world.ask.path)) == 1
    vault.make_zombie(accessor)
    assert vault.leases.revoke_token(accessor) is Answer.ZOMBIE
    facts = vault.logins.facts(accessor)
    assert facts is not None
    assert facts.num_uses == -1
    vault.faults.sealed = True
    with pytest.raises(VaultUnavailableError):
        vault.leases.under(world.ask.path)
