"""Two control planes in memory over one store and one Vault, everything that can go wrong, and the claim after it.

The claim: once the fault is over and the worker has run, no credential is alive whose grant is not active, and no
active grant has lost its credential.
"""

import contextlib
import itertools
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final

from controlplane.audit.chain import Intact, verify
from controlplane.grants.issue import Delivered
from controlplane.model.errors import ControlPlaneError, StoreUnavailableError, VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze
from controlplane.model.grant import TERMINAL, Grant, GrantId, State, TaskId, Why
from controlplane.model.lease import Accessor
from controlplane.model.secret import Secret
from controlplane.testing.clock import FakeClock
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.ids import CountingIds
from controlplane.testing.store import AUDIT_KEY, FakeStore
from controlplane.testing.vault import FakeVault
from tests.chaos.claim import amiss
from tests.chaos.deeds import DEEDS
from tests.chaos.replica import Hook, KilledError, Replica, Shared

TICK: Final = timedelta(seconds=5)
SETTLED_WITHIN: Final = timedelta(minutes=4)
"""After the last fault: a settling time, the longest back-off, and the hold of a worker that died."""
SHORT, LONG = timedelta(seconds=40), timedelta(minutes=14)
SCOPE: Final = {"engine": "database", "connection": "orders"}
ENTITLEMENTS: Final = (
    compiled_entitlement(),
    compiled_entitlement(
        entitlement="two-scopes",
        scopes=[{**SCOPE, "name": name, "privileges": [f"select on table sales.{name}"]} for name in ("a", "b")],
    ),
    compiled_entitlement(
        entitlement="in-line",
        delivery="inline",
        eligibility=[{"issuer": "dev", "subject": {"glob": "repo:acme/*:ref:refs/heads/main"}}],
    ),
    compiled_entitlement(entitlement="watched", heartbeat="45s"),
    compiled_entitlement(entitlement="agreed", risk="medium", approval={"quorum": 1, "from": ["group:oncall"]}),
)
TRAPS: Final = (
    "killed",
    "no-answer",
    "answer-lost",
    "sealed",
    "store-down",
    "commit-unknown",
    "target-down",
    "vault-crash",
    "read-overtaken",
    "sent-twice",
    "late-login",
    "clock-jump",
    "other-works",
    "other-reconciles",
    "other-finishes",
    "other-asks",
    "other-finishes-task",
    "other-freezes",
)
RARE: Final = frozenset({"vault-crash", "read-overtaken", "sent-twice", "late-login"})
"""There are not many steps at which these can happen: it is always the first."""
TROUBLES: Final = (
    *("kill", "seal", "target-down", "lease-given-up", "disk-full", "late-login", "repair", "repair", "repair"),
    *("-3600", "-20", "-4", "4", "20", "3600"),  # by how many seconds its clock jumps
)
VAULT_CALLS: Final = ("logins.", "leases.")

Trap = tuple[str, int] | None
"""What goes wrong, and how many of the steps at which it could go wrong pass first."""


class Machine:
    """Two control planes, their agents, and everything that can go wrong between them."""

    def __init__(self) -> None:
        self.now = FakeClock()
        self.vault = FakeVault(LAYOUT, self.now)
        self.store, self.ids = FakeStore(), CountingIds()
        for item in (item for each in ENTITLEMENTS for item in each.objects):
            self.vault.roles.write(item)
        self.traps: dict[str, Trap] = {}
        self.wraps: list[Secret] = []
        self.lost: dict[str, GrantId | None] = {}
        """Users whose lease Vault lost, and the grant they were made for."""
        self.late: list[tuple[str, Secret]] = []
        self.acting: list[str] = []
        self.tasks = 1
        self.frozen: dict[str, int] = {}
        """Selections that certainly are frozen, and how much had happened by then."""
        self.furthest = self.now.now()
        """The latest instant that a wrong clock ever showed: what was put off then may be due that late."""
        shared = Shared(self.store, self.vault, self.ids, itertools.count(1))
        self.replicas = [Replica(name, shared, ENTITLEMENTS, self.meet) for name in ("one", "two")]

    # What agents and workers do, and what goes wrong at one of the calls that it takes.

    def ask(self, number: int, entitlement: str, key: str | None, ttl: timedelta | None, trap: "Trap") -> None:
        self.act(number, lambda replica: self._ask(replica, entitlement, key, ttl), trap)

    def _ask(self, replica: Replica, entitlement: str, key: str | None = None, ttl: timedelta | None = None) -> None:
        task = TaskId(f"T-{self.tasks}")
        self._given(replica.plane.ask(entitlement=entitlement, key=key, ttl=ttl, task=task))

    def _given(self, given: Delivered) -> None:
        self.wraps += [given.wrapping_token] if given.wrapping_token else []

    def do(self, number: int, deed: str, which: int, trap: "Trap") -> None:
        """One of `deeds.DEEDS`."""
        if deed == "thaw":
            self.frozen.clear()
        self.act(number, lambda replica: self._do(replica, deed, which), trap)
        self.tasks += deed == "finish-task" and which > 0  # else what is asked for next is asked for too late

    def _do(self, replica: Replica, deed: str, which: int) -> None:
        match DEEDS[deed](replica.plane, which):
            case Freeze(selection=selection):
                self.frozen.setdefault(selection, len(self.store.events()))
            case Delivered() as given:
                self._given(given)
            case None:
                pass

    def open(self, number: int) -> None:
        if self.wraps:
            with contextlib.suppress(ControlPlaneError):
                self.vault.unwrap(self.wraps.pop(number % len(self.wraps)))

    def finish(self, number: int, which: int, trap: "Trap") -> None:
        self.act(number, lambda replica: self._finish(replica, which), trap)

    def _finish(self, replica: Replica, which: int) -> None:
        if grants := replica.plane.store.grants(states=[State.ISSUING, State.ACTIVE]):
            replica.plane.finish(replica.plane.agent(), grants[which % len(grants)].id, Why.COMPLETED)

    def work(self, number: int, trap: "Trap") -> None:
        self.act(number, lambda replica: replica.plane.work(), trap)

    def reconcile(self, number: int, trap: "Trap") -> None:
        self.act(number, lambda replica: replica.plane.reconcile(), trap)

    def pass_time(self, seconds: int) -> None:
        self.pass_on(timedelta(seconds=seconds))

    # What goes wrong by itself.

    def trouble(self, number: int, trouble: str) -> None:
        replica, faults, target = self.replicas[number], self.vault.faults, self.vault.target
        match trouble:
            case "kill":
                replica.life.over = True
                replica.start()
            case "seal":
                faults.sealed = True
            case "target-down":
                target.down = True
            case "lease-given-up":
                target.down = faults.given_up = True
            case "disk-full":
                self.store.down = "its disk is full"
            case "late-login":
                self.let_a_late_login_arrive()
            case "repair":
                faults.sealed = faults.given_up = target.down = False
                self.store.down = None
                self.do(number, "thaw", 0, None)
            case _:
                self._jump(replica, timedelta(seconds=int(trouble)))

    def let_a_late_login_arrive(self) -> None:
        while self.late:
            with contextlib.suppress(ControlPlaneError):
                self.vault.logins.login(*self.late.pop())

    def calm(self) -> None:
        self.settle()

    # The claim.

    def end(self) -> None:
        """Settle; then end everything, and see that nothing is left."""
        self.settle()
        self.settle_clocks()
        for grant in self.store.grants(states=[State.PENDING, State.APPROVED, State.ACTIVE], limit=1000):
            self.replicas[0].plane.finish(self.replicas[0].plane.agent(), grant.id, Why.COMPLETED)
        self.settle()
        unended = [g for g in self.store.grants(limit=1000) if g.state not in TERMINAL]
        assert not unended, unended
        kinds = [event.kind for event in self.store.events()]
        assert kinds.count(Kind.GRANT_REVOKED) == len(self.store.grants(states=[State.REVOKED], limit=1000))
        links = self.store.links(limit=100_000)
        assert isinstance(verify(links, self.store.head(), AUDIT_KEY), Intact)

    def settle(self) -> None:
        """Let every fault be over and the workers run; then nothing lives that should not, and all that should."""
        self.let_a_late_login_arrive()
        self.vault.faults.sealed = self.vault.faults.given_up = self.vault.target.down = False
        self.vault.faults.lose_login = self.vault.faults.lose_read = self.vault.faults.lose_wrap = False
        self.store.down = None
        self.settle_clocks()
        ends = max(self.now.now(), self.furthest) + SETTLED_WITHIN
        while self.now.now() < ends:
            for number in range(len(self.replicas)):
                self.work(number, None)
                self.reconcile(number, None)
            if not self.unsettled() and not amiss(self):
                break
            self.pass_on(TICK)
        assert not self.unsettled(), self.unsettled()
        assert not amiss(self), amiss(self)

    def settle_clocks(self) -> None:
        for replica in self.replicas:
            replica.clock.advance(-replica.ahead)
            replica.look_at_the_clock()

    def unsettled(self) -> list[Grant]:
        """Grants that were decided on and are not yet so."""
        states = [State.ISSUING, State.REVOKING, State.IRREVOCABLE]
        active = self.store.grants(states=[State.ACTIVE], limit=1000)
        over = [g for g in active if g.over(self.now.now()) is not None or g.renewing_to is not None]
        return [*self.store.grants(states=states, limit=1000), *over]

    # How it is done.

    def act(self, number: int, do: Callable[[Replica], object], trap: "Trap" = None) -> None:
        """Let a replica do something, whatever becomes of it; one that was killed is started again."""
        replica = self.replicas[number]
        self.traps[replica.name] = trap
        self.acting.append(replica.name)
        try:
            do(replica)
        except ControlPlaneError:
            pass
        except KilledError:
            if not replica.life.over:
                raise
        finally:
            self.acting.pop()
            self.traps[replica.name] = None
        if replica.life.over:
            replica.start()

    def pass_on(self, span: timedelta) -> None:
        for clock in (self.now, *(replica.clock for replica in self.replicas)):
            self.furthest = max(self.furthest, clock.advance(span))

    def meet(self, replica: Replica, when: str, step: str) -> Hook | None:
        """What happens at this step, if the trap of this replica is one for it."""
        trap = self.traps.get(replica.name)
        hook = None if trap is None else self._hook(replica, trap[0], when, step)
        if trap is None or hook is None:
            return None
        name, more = trap
        more = 0 if name in RARE else more
        self.traps[replica.name] = (name, more - 1) if more else None
        return None if more else hook

    def _hook(self, replica: Replica, trap: str, when: str, step: str) -> Hook | None:  # noqa: PLR0911, PLR0912, C901 # one line a trap
        commit, asks_vault = step.startswith("commit"), step.startswith(VAULT_CALLS)
        other = next(each for each in self.replicas if each is not replica)
        free = other.name not in self.acting and not (commit and when == "before")  # the store is locked then
        match trap, when:
            case "killed", _:
                return replica.life.kill
            case ("no-answer", "before") | ("answer-lost", "after") if asks_vault:
                return partial(_raise, VaultUnavailableError)
            case "sealed", _:
                return partial(setattr, self.vault.faults, "sealed", True)
            case "store-down", _:
                return partial(setattr, self.store, "down", "its disk is full")
            case ("commit-unknown", _) if commit:
                return partial(_raise, StoreUnavailableError)
            case "target-down", _:
                return partial(setattr, self.vault.target, "down", True)
            case ("vault-crash", "before") if step == "leases.revoke_token":
                return self._crash_while_revoking
            case ("vault-crash", "after") if step == "logins.read":
                return self._lose_the_lease
            case ("read-overtaken", "before") if step == "logins.read" and free:
                return partial(self._overtake, other)
            case ("sent-twice", "after") if step == "logins.login":
                return partial(self._again, replica)
            case ("late-login", "before") if step == "logins.login":
                return partial(self._delay, replica)
            case "clock-jump", _:
                return partial(self._jump, replica, timedelta(seconds=20))
            case ("other-works", _) if free:
                return partial(self.work, self.replicas.index(other), None)
            case ("other-reconciles", _) if free:
                return partial(self.reconcile, self.replicas.index(other), None)
            case ("other-finishes", _) if free:
                return partial(self.finish, self.replicas.index(other), 0, None)
            case ("other-asks", _) if free:
                return partial(self.act, self.replicas.index(other), lambda two: self._ask(two, "two-scopes"))
            case ("other-finishes-task", _) if free:
                return partial(self.do, self.replicas.index(other), "finish-task", 1, None)
            case ("other-freezes", _) if free:
                return partial(self.do, self.replicas.index(other), "freeze", 0, None)
            case _:
                return None

    def _jump(self, replica: Replica, span: timedelta) -> None:
        replica.clock.advance(span)
        self.furthest = max(self.furthest, replica.clock.now())
        replica.look_at_the_clock()

    def _crash_while_revoking(self) -> None:
        """Vault dies amid a revocation: the token is neither dead nor alive, its leases live (fact 4)."""
        revoking = (grant.accessor for grant in self.store.grants(states=[State.REVOKING], limit=1000))
        hit = next((at for at in revoking if at is not None and at in self.vault.tokens), None)
        if hit is not None:
            self.vault.make_zombie(hit)
        raise VaultUnavailableError("Vault died while it revoked")

    def _lose_the_lease(self) -> None:
        """Vault dies after the target has the login and before the lease is written (fact 5)."""
        token, user = self.vault.lose_lease()
        self.lost[user] = self._grant_of(token)
        raise VaultUnavailableError("Vault died while it read")

    def _grant_of(self, accessor: Accessor | None) -> GrantId | None:
        return next((grant.id for grant in self.store.grants(limit=1000) if grant.accessor == accessor), None)

    def _overtake(self, other: Replica) -> None:
        """A read passes the token check, its grant is revoked meanwhile, and then it makes its login (fact 3)."""
        issuing = self.store.grants(states=[State.ISSUING], limit=1)
        if not issuing:
            return
        self.act(self.replicas.index(other), lambda two: two.plane.finish(two.plane.agent(), issuing[0].id, Why.FAILED))
        self.act(self.replicas.index(other), lambda two: two.plane.work())
        if not self.vault.faults.sealed:
            self.vault.plant_lease(issuing[0].paths[0], f"v-overtaken-{len(self.store.events())}", LONG)
        raise VaultUnavailableError("the read took too long")

    def _again(self, replica: Replica) -> None:
        """Something between us and Vault sends the login a second time by itself (fact 13)."""
        with contextlib.suppress(ControlPlaneError):
            self.vault.logins.login(self._role(replica), replica.plane.assertions[-1])

    def _delay(self, replica: Replica) -> None:
        self.late.append((self._role(replica), replica.plane.assertions[-1]))
        raise VaultUnavailableError("the login took too long")

    def _role(self, replica: Replica) -> str:
        (grant,) = self.store.grants(states=[State.ISSUING], limit=1)
        compiled = replica.plane.entitlements.get(grant.entitlement)
        assert compiled is not None
        return compiled.naming.base


def _raise(error: type[ControlPlaneError]) -> None:
    raise error("as the machine wants it")
