"""A Vault in memory: `logins`, `leases`, `roles` and a `target` fit the ports of these names; it fails as it is told.

It is proved against a real OpenBao by tests/contract/test_vault_ports.py. It believes every signature, so it proves
nothing about keys; the users of its one target are names in `target.users`.
"""

import base64
import itertools
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, Self, cast

from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.errors import NotSyncedError, TargetUnavailableError, VaultRefusedError, VaultUnavailableError
from controlplane.model.grant import GrantId
from controlplane.model.lease import (
    Accessor,
    Ask,
    Evidence,
    LeaseFacts,
    LeaseId,
    Response,
    Target,
    TaskToken,
    TokenFacts,
    Wrapped,
)
from controlplane.model.orphan import Epoch, Login
from controlplane.model.plan import Layout, ObjectKind, VaultObject
from controlplane.model.secret import Secret
from controlplane.ports import Answer, Clock
from controlplane.sync.ours import origin, role_of_grant

_OUT_OF_RETRIES = "out of retries, last error: the target does not answer"

Payload = Mapping[str, Mapping[str, Secret]]


@dataclass(kw_only=True)
class Faults:
    """What shall go wrong. A `lose_…` is used up by one call, which has its effect and whose answer is lost."""

    sealed: bool = False
    """Every call fails."""
    given_up: bool = False
    """Leases whose target is down count as irrevocable: Vault has tried six times."""
    lose_write: bool = False
    lose_login: bool = False
    lose_read: bool = False
    lose_wrap: bool = False
    lose_extend: bool = False
    """Before the token, after its leases."""
    lose_extended: bool = False

    def lost(self, call: str) -> None:
        """Lose the answer, if that was ordered."""
        if getattr(self, f"lose_{call}"):
            setattr(self, f"lose_{call}", False)
            raise VaultUnavailableError(f"the answer to the {call} was lost")


@dataclass(kw_only=True)
class FakeTarget:
    """Fits `ports.Prober`: the target behind every credential. When it is `down`, nothing can be revoked or asked."""

    users: set[str] = field(default_factory=set[str])
    groups: dict[str, str] = field(default_factory=dict[str, str])
    """Which group role a user is a member of."""
    down: bool = False
    kind: str = "postgresql"

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether `principal` is gone."""
        del issued_at
        if self.down:
            raise TargetUnavailableError(f"{target.name} does not answer")
        there = principal in self.users
        return Evidence(gone=not there, detail=f"{target.name}: {principal} is {'there' if there else 'gone'}")

    def logins(self, target: str) -> Sequence[Login]:
        """Every user that is a member of a group role."""
        if self.down:
            raise TargetUnavailableError(f"{target} does not answer")
        return [
            Login(name=name, group=group, valid_until=None, sessions=0)
            for name, group in sorted(self.groups.items())
            if name in self.users
        ]

    def named(self, target: str) -> Sequence[Login]:
        """Every user that is named as Vault names what it makes for us."""
        if self.down:
            raise TargetUnavailableError(f"{target} does not answer")
        return [
            Login(name=name, group="", valid_until=None, sessions=0)
            for name in sorted(self.users)
            if name.startswith(("v-fake-", "v-sh-"))
        ]


class FakeVault:
    """One server with one target. Thread-safe."""

    def __init__(self, layout: Layout, clock: Clock) -> None:
        self.faults = Faults()
        self.target = FakeTarget()
        self._state = state = _State(layout, clock, self.faults, self.target)
        self.logins = FakeLogins(state)
        self.leases = FakeLeases(state)
        self.roles = FakeRoles(state)
        self.grant_roles = FakeGrantRoles(state)
        self.census = FakeCensus(state)

    def make_zombie(self, accessor: Accessor) -> None:
        """What a crash in the middle of a revocation leaves: the token is lost, its leases live on."""
        with self._state as state:
            token = state.tokens[accessor]
            state.tokens[accessor] = replace(token, facts=replace(token.facts, num_uses=-1))

    def lose_lease(self) -> tuple[Accessor | None, str]:
        """Forget the lease that was made last, and leave its user: the token it hung from, and the user.

        What a crash leaves that comes after the target made a user and before the lease is written.
        """
        with self._state as state:
            lease = state.leases.pop(next(reversed(state.leases)))
            return lease.token, lease.principal

    def plant_lease(self, path: str, principal: str, ttl: timedelta) -> LeaseId:
        """A lease that no token of ours knows, as a read that lost a race leaves behind."""
        with self._state as state:
            return state.add_lease(path, principal, ttl, ttl, token=None)

    def unwrap(self, token: Secret) -> Payload:
        """What an agent does at Vault itself. Raises: VaultRefusedError: it was opened before, or has run out."""
        with self._state as state:
            accessor = state.holder(token).facts.accessor
            del state.tokens[accessor]
            return state.wrapped.pop(accessor)

    def shown(self, word: str, path: str) -> JsonObject | None:
        """What every mount here shows to everybody: at `logins/<principal>`, whether its target has that one."""
        del word  # there is one target
        return {} if path.removeprefix("logins/") in self.target.users else None

    @property
    def clock(self) -> Clock:
        """By which everything here ends."""
        return self._state.clock

    @property
    def roles_of_grants(self) -> Sequence[VaultObject]:
        """The roles that were made for one grant each."""
        with self._state as state:
            items = state.objects.items()
            return [item for path, item in items if role_of_grant(state.layout, path.rpartition("/")[2]) is not None]

    @property
    def tokens(self) -> Sequence[Accessor]:
        """Accessors of all living tokens."""
        with self._state as state:
            return [*state.tokens]


@dataclass(frozen=True, slots=True)
class FakeLogins:
    """Fits `ports.Logins`."""

    _state: "_State"

    def login(self, role: str, assertion: Secret) -> TaskToken:
        """Check audience and bound claims as the role says, and make a token."""
        with self._state as state:
            path = f"auth/{state.layout.auth_mount}/role/{role}"
            if path not in state.objects:
                raise NotSyncedError(f"Vault has no role {role} at auth/{state.layout.auth_mount}")
            made = _admitted(state, role, state.objects[path].data, _claims(assertion))
            state.faults.lost("login")
            return made

    def facts(self, accessor: Accessor) -> TokenFacts | None:
        """What is known of a token; a zombie shows `num_uses` -1."""
        with self._state as state:
            token = state.tokens.get(accessor)
            return None if token is None else replace(token.facts, ttl=token.ends_at - state.clock.now())

    def accessors_of(self, grant: GrantId) -> Sequence[Accessor]:
        """Task tokens whose metadata names this grant."""
        with self._state as state:
            return [accessor for accessor, token in state.tokens.items() if token.facts.metadata.get("grant") == grant]

    def read(self, token: Secret, ask: Ask) -> Response:
        """Make one credential, if the token's policies name the path."""
        with self._state as state:
            holder = state.holder(token)
            state.allow(holder, ask.path)
            made = _credential(state, ask, holder.facts.accessor)
            state.faults.lost("read")
            return made

    def wrap(self, token: Secret, payload: Payload, ttl: timedelta) -> Wrapped:
        """A wrapping token, good for one `unwrap`."""
        with self._state as state:
            state.allow(state.holder(token), "sys/wrapping/wrap")
            made = state.add_token(policies=["response-wrapping"], ttl=ttl, longest=ttl, num_uses=1, metadata={})
            state.wrapped[made.accessor] = payload
            state.faults.lost("wrap")
            return Wrapped(token=made.token, accessor=made.accessor, ttl=ttl)


@dataclass(frozen=True, slots=True)
class FakeLeases:
    """Fits `ports.Leases`."""

    _state: "_State"

    def revoke_token(self, accessor: Accessor) -> Answer:
        """Revoke a token and its leases; with the target down the leases stay behind."""
        with self._state as state:
            token = state.tokens.get(accessor)
            if token is None:
                return Answer.UNKNOWN_TOKEN
            if token.facts.num_uses < 0:
                return Answer.ZOMBIE
            state.end_token(accessor)
            return Answer.REQUESTED

    def renew(self, accessor: Accessor, leases: Sequence[LeaseId], ttl: timedelta) -> None:
        """Move the ends of a token and its leases, never past their maximum."""
        with self._state as state:
            token, wanted = state.tokens.get(accessor), state.clock.now() + ttl
            if token is None:
                raise VaultRefusedError("invalid accessor")
            state.tokens[accessor] = replace(token, ends_at=min(wanted, token.issued_at + token.facts.explicit_max_ttl))
            for id in leases:
                lease = state.leases.get(id)
                if lease is None:
                    raise VaultRefusedError("lease not found")
                if not lease.renewable or state.target.down:
                    raise VaultRefusedError(f"failed to renew {id}")
                state.leases[id] = replace(lease, ends_at=min(wanted, lease.latest))

    def extend(self, accessor: Accessor, leases: Sequence[LeaseId], ttl: timedelta) -> None:
        """Move the ends of leases and, last, of their token; what their maximum cuts short counts as refused."""
        with self._state as state:
            wanted = state.clock.now() + ttl
            for id in leases:
                lease = state.leases.get(id)
                if lease is None or not lease.renewable or state.target.down:
                    raise VaultRefusedError(f"failed to renew {id}")
                state.leases[id] = replace(lease, ends_at=min(wanted, lease.latest))
                _see_enough(lease.latest, wanted)
            state.faults.lost("extend")
            token = state.tokens.get(accessor)
            if token is None or token.facts.num_uses < 0:
                raise VaultRefusedError("invalid accessor")
            longest = token.issued_at + token.facts.explicit_max_ttl
            state.tokens[accessor] = replace(token, ends_at=min(wanted, longest))
            _see_enough(longest, wanted)
            state.faults.lost("extended")

    def facts(self, lease: LeaseId) -> LeaseFacts | None:
        """What is known of a lease; a TTL of zero or less is one that could not be revoked."""
        with self._state as state:
            found = state.leases.get(lease)
            if found is None:
                return None
            left = found.ends_at - state.clock.now()
            error = _OUT_OF_RETRIES if left <= timedelta(0) and state.faults.given_up else None
            return LeaseFacts(
                id=lease, issued_at=found.issued_at, ttl=left, revoke_error=error, renewable=found.renewable
            )

    def revoke(self, lease: LeaseId) -> None:
        """Revoke one lease. Raises: VaultRefusedError: the target is down."""
        with self._state as state:
            if not state.end_lease(lease):
                raise VaultRefusedError(f"failed to revoke {lease}: the target does not answer")

    def ask_to_revoke(self, lease: LeaseId) -> None:
        """Revoke one lease; with the target down it stays behind."""
        with self._state as state:
            state.end_lease(lease)

    def under(self, path: str) -> Sequence[LeaseId]:
        """Every lease of credentials read at `path`."""
        with self._state as state:
            return [id for id in state.leases if id.rpartition("/")[0] == path]


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSurvey:
    """Fits `ports.Survey`."""

    listed: frozenset[Accessor]
    tokens: Sequence[TokenFacts]


@dataclass(frozen=True, slots=True)
class FakeCensus:
    """Fits `ports.Census`."""

    _state: "_State"

    def survey(self, known: Callable[[Sequence[Accessor]], frozenset[Accessor]]) -> FakeSurvey:
        """Every accessor, and the task tokens among the unknown that are no zombies."""
        with self._state as state:
            listed, tokens = frozenset(state.tokens), dict(state.tokens)
        unknown = sorted(listed - known(sorted(listed)))
        facts = [tokens[accessor].facts for accessor in unknown]
        # A wrapping token has no role: no task logged in to it.
        return FakeSurvey(
            listed=listed, tokens=[fact for fact in facts if fact.num_uses >= 0 and "role" in fact.metadata]
        )

    def places(self) -> Sequence[str]:
        """Every path under which a lease hangs."""
        with self._state as state:
            paths = sorted({id.rpartition("/")[0] for id in state.leases})
            return [
                path
                for path in paths
                if origin(state.layout, ObjectKind.SECRET_ROLE, _role_path(path))
                or role_of_grant(state.layout, path.rpartition("/")[2])
            ]

    def epoch(self) -> Epoch | None:
        """What was noted last."""
        with self._state as state:
            return state.epoch

    def note(self, epoch: Epoch) -> None:
        """Note how far the store is."""
        with self._state as state:
            state.epoch = epoch


@dataclass(frozen=True, slots=True)
class FakeRoles:
    """Fits `ports.Roles`."""

    _state: "_State"

    def read(self, layout: Layout) -> Mapping[str, VaultObject]:
        """All objects of ours by path."""
        with self._state as state:
            return {path: item for path, item in state.objects.items() if origin(layout, item.kind, path) is not None}

    def write(self, item: VaultObject) -> None:
        """Write one object; fields that it does not name stay."""
        with self._state as state:
            before = state.objects.get(item.path)
            state.objects[item.path] = replace(item, data={**(before.data if before else {}), **item.data})

    def delete(self, item: VaultObject) -> None:
        """Delete one object; one that is not there is fine."""
        with self._state as state:
            state.objects.pop(item.path, None)

    def leases_under(self, item: VaultObject) -> int:
        """How many leases hang from a secret role; 0 for other kinds."""
        with self._state as state:
            if item.kind is not ObjectKind.SECRET_ROLE:
                return 0
            return sum(_role_path(id.rpartition("/")[0]) == item.path for id in state.leases)


@dataclass(frozen=True, slots=True)
class FakeGrantRoles:
    """Fits `ports.GrantRoles`."""

    _state: "_State"

    def write(self, roles: Sequence[VaultObject]) -> None:
        """Write the roles of one grant."""
        with self._state as state:
            for role in roles:
                if role_of_grant(state.layout, role.path.rpartition("/")[2]) is None:
                    raise VaultRefusedError(f"permission denied: {role.path}")
                state.objects[role.path] = role
                state.faults.lost("write")

    def remove(self, grant: GrantId) -> None:
        """Delete every role of a grant."""
        with self._state as state:
            for path in [path for path in state.objects if self._of(path) == grant]:
                del state.objects[path]

    def present(self) -> Mapping[GrantId, Sequence[str]]:
        """The grants of which there are roles."""
        with self._state as state:
            found: dict[GrantId, list[str]] = {}
            for path in state.objects:
                if (grant := self._of(path)) is not None:
                    mount, _, name = path.partition("/roles/")
                    found.setdefault(grant, []).extend([f"{mount}/creds/{name}", f"{mount}/issue/{name}"])
            return found

    def _of(self, path: str) -> GrantId | None:
        return role_of_grant(self._state.layout, path.rpartition("/")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    secret: Secret
    facts: TokenFacts
    issued_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lease:
    token: Accessor | None
    principal: str
    issued_at: datetime
    ends_at: datetime
    latest: datetime
    renewable: bool = True


class _State:
    """What the server knows. As a context it is one call: alone, awake, and with what has run out ended."""

    def __init__(self, layout: Layout, clock: Clock, faults: Faults, target: FakeTarget) -> None:
        self.layout, self.clock, self.faults, self.target = layout, clock, faults, target
        self.objects: dict[str, VaultObject] = {}
        self.tokens: dict[Accessor, _Token] = {}
        self.leases: dict[LeaseId, _Lease] = {}
        self.wrapped: dict[Accessor, Payload] = {}
        self.epoch: Epoch | None = None
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        self._lock.acquire()
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _begin(self) -> None:
        if self.faults.sealed:
            raise VaultUnavailableError("Vault is sealed")
        now = self.clock.now()
        over = [
            accessor for accessor, token in self.tokens.items() if token.ends_at <= now and token.facts.num_uses >= 0
        ]
        for accessor in over:
            self.end_token(accessor)
        for id in [id for id, lease in self.leases.items() if lease.ends_at <= now]:
            self.end_lease(id)

    def number(self) -> int:
        return next(self._numbers)

    def holder(self, secret: Secret) -> _Token:
        for token in self.tokens.values():
            if token.secret == secret and token.facts.num_uses >= 0:
                return token
        raise VaultRefusedError("permission denied: no such token")

    def allow(self, holder: _Token, path: str) -> None:
        for policy in holder.facts.policies:
            item = self.objects.get(f"sys/policies/acl/{policy}")
            rules: dict[str, JsonValue] = {} if item is None else json.loads(str(item.data["policy"]))["path"]
            if path in rules or any(rule.endswith("*") and path.startswith(rule[:-1]) for rule in rules):
                return
        raise VaultRefusedError(f"permission denied: {path}")

    def add_token(
        self, *, policies: Sequence[str], ttl: timedelta, longest: timedelta, num_uses: int, metadata: Mapping[str, str]
    ) -> TaskToken:
        number, now = self.number(), self.clock.now()
        accessor, secret = Accessor(f"accessor{number:016}"), Secret(f"s.token{number:016}")
        facts = TokenFacts(
            accessor=accessor,
            kind="service",
            orphan=True,
            policies=frozenset(policies),
            ttl=ttl,
            explicit_max_ttl=longest,
            period=timedelta(0),
            num_uses=num_uses,
            metadata=metadata,
            created_at=now,
        )
        self.tokens[accessor] = _Token(secret=secret, facts=facts, issued_at=now, ends_at=now + ttl)
        return TaskToken(token=secret, accessor=accessor)

    def add_lease(
        self, path: str, principal: str, ttl: timedelta, longest: timedelta, *, token: Accessor | None
    ) -> LeaseId:
        id, now = LeaseId(f"{path}/lease{self.number():016}"), self.clock.now()
        self.leases[id] = _Lease(
            token=token,
            principal=principal,
            issued_at=now,
            ends_at=now + ttl,
            latest=now + longest,
            renewable="/creds/" in path,
        )
        self.target.users.add(principal)
        mount, _, role = path.partition("/creds/")
        if mount != path:
            self.target.groups[principal] = role
        return id

    def end_token(self, accessor: Accessor) -> None:
        del self.tokens[accessor]
        self.wrapped.pop(accessor, None)
        for id in [id for id, lease in self.leases.items() if lease.token == accessor]:
            self.end_lease(id)

    def end_lease(self, id: LeaseId) -> bool:
        """Whether it is gone; with the target down it stays, and its time is over."""
        lease = self.leases.get(id)
        if lease is None:
            return True
        if self.target.down:
            self.leases[id] = replace(lease, ends_at=min(lease.ends_at, self.clock.now()))
            return False
        del self.leases[id]
        self.target.users.discard(lease.principal)
        return True


def _admitted(state: _State, role: str, data: JsonObject, claims: Mapping[str, Any]) -> TaskToken:
    bound = cast("Mapping[str, JsonValue]", data.get("bound_claims") or {})
    globs = data.get("bound_claims_type") == "glob"
    if claims.get("aud") not in cast("list[str]", data["bound_audiences"]):
        raise VaultRefusedError("error validating claims: invalid audience (aud) claim")
    if claims["exp"] <= state.clock.now().timestamp():
        raise VaultRefusedError("error validating token: token is expired")
    for name, expected in bound.items():
        allowed = expected if isinstance(expected, list) else [expected]
        if not any(_matches(str(claims.get(name)), str(pattern), globs=globs) for pattern in allowed):
            raise VaultRefusedError(
                f"error validating claims: claim {name!r} does not match any associated bound value"
            )
    mapped = cast("Mapping[str, str]", data.get("claim_mappings") or {})
    return state.add_token(
        policies=cast("list[str]", data["token_policies"]),
        ttl=timedelta(seconds=cast("int", data["token_ttl"])),
        longest=timedelta(seconds=cast("int", data["token_explicit_max_ttl"])),
        num_uses=cast("int", data.get("token_num_uses") or 0),
        metadata={"role": role, **{key: claims[claim] for claim, key in mapped.items() if claim in claims}},
    )


def _credential(state: _State, ask: Ask, accessor: Accessor) -> Response:
    item = state.objects.get(_role_path(ask.path))
    if item is None:
        raise VaultRefusedError("unknown role")
    number = state.number()
    asked = str((ask.body or {}).get("ttl", "")).removesuffix("s")
    ttl = timedelta(seconds=int(asked) if asked else cast("int", item.data.get("default_ttl") or item.data["ttl"]))
    longest = timedelta(seconds=cast("int", item.data["max_ttl"]))
    if ask.body is None:
        principal = f"v-fake-{number}"
        data = {"username": principal, "password": f"password-{number}"}
    else:
        principal = f"{number:020x}"
        names = ("certificate", "private_key", "issuing_ca")
        data = {"serial_number": principal, **{name: f"{name}-{number}" for name in names}}
    lease = state.add_lease(ask.path, principal, min(ttl, longest), longest, token=accessor)
    return Response(
        lease=lease, lease_ttl=min(ttl, longest), data={name: Secret(value) for name, value in data.items()}
    )


def _see_enough(longest: datetime, wanted: datetime) -> None:
    if longest < wanted - timedelta(seconds=2):
        raise VaultRefusedError("Vault gives less than was asked for")


def _role_path(path: str) -> str:
    """The role behind the path at which a credential is made: `database/creds/x` is `database/roles/x`."""
    mount, _, rest = path.partition("/")
    return f"{mount}/roles/{rest.partition('/')[2]}"


def _claims(assertion: Secret) -> Mapping[str, Any]:
    try:
        payload = assertion.reveal().split(".")[1]
        return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        raise VaultRefusedError("error validating token: not a JWT") from None


def _matches(value: str, pattern: str, *, globs: bool) -> bool:
    return fnmatchcase(value, pattern.replace("[", "[[]").replace("?", "[?]")) if globs else value == pattern
