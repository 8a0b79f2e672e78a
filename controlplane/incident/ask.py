"""Ask Vault and the targets about one grant, now; what the store believes is not asked."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from controlplane.model.errors import TargetUnavailableError, VaultRefusedError, VaultUnavailableError
from controlplane.model.grant import Grant
from controlplane.model.lease import Accessor, Lease, Target, is_leased
from controlplane.ports import Clock, Engine, Leases, Logins, Prober

VAULT = "vault"


class Found(StrEnum):
    """What was answered."""

    GONE = "gone"
    ALIVE = "alive"
    UNKNOWN = "cannot-be-asked"


class What(StrEnum):
    """What was asked about."""

    TOKEN = "token"  # noqa: S105 # a word
    LEASE = "lease"
    CREDENTIAL = "credential"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One answer: `place` gave it at `at`, and `evidence` is what it said, or why it could not be asked.

    `due`: it should be gone, because its grant has ended or is ending.
    """

    what: What
    name: str
    place: str
    found: Found
    evidence: str
    at: datetime
    due: bool

    @property
    def proved(self) -> bool:
        """Whether nothing is wrong with it: it is gone, or need not be."""
        return self.found is Found.GONE or not self.due


@dataclass(frozen=True, slots=True, kw_only=True)
class AskAgain:
    """One round of questions. Who does not answer once is not waited for again in it: make another for the next."""

    clock: Clock
    logins: Logins
    leases: Leases
    probers: Mapping[str, Prober]
    engines: Mapping[str, Engine]
    servers: Container[str]
    """Targets of which no answer means none to any question; at others it is about one name."""
    _silent: dict[str, str] = field(default_factory=dict[str, str])

    def __call__(self, grant: Grant, leases: Sequence[Lease], *, due: bool) -> Sequence[Fact]:
        """Its token, its leases and its credentials at their targets. Never raises, and changes nothing."""
        facts = [] if grant.accessor is None else [self._token(grant.accessor, due=due)]
        for lease in leases:
            facts += [self._lease(lease, due=due)] if is_leased(lease.id) else []
            facts.append(self._credential(lease, due=due))
        return facts

    def at(self, target: Target, principal: str, *, issued_at: datetime, due: bool) -> Fact:
        """Whether a target knows this name. Never raises."""

        def ask() -> tuple[Found, str]:
            evidence = self.probers[target.kind].ask(target, principal, issued_at=issued_at)
            return Found.GONE if evidence.gone else Found.ALIVE, evidence.detail

        return self._fact(What.CREDENTIAL, principal, target.name, ask, due=due)

    def _token(self, accessor: Accessor, *, due: bool) -> Fact:
        def ask() -> tuple[Found, str]:
            facts = self.logins.facts(accessor)
            if facts is None:
                return Found.GONE, "Vault knows no token with this accessor"
            if facts.num_uses < 0:
                return Found.GONE, "what Vault keeps of it is a zombie, which can do nothing"
            return Found.ALIVE, f"Vault has it, for {int(facts.ttl.total_seconds())} s more"

        return self._fact(What.TOKEN, accessor, VAULT, ask, due=due)

    def _lease(self, lease: Lease, *, due: bool) -> Fact:
        def ask() -> tuple[Found, str]:
            facts = self.leases.facts(lease.id)
            if facts is None:
                return Found.GONE, "Vault has no such lease"
            if facts.irrevocable:
                return Found.ALIVE, f"Vault has given it up: {facts.revoke_error}"
            return Found.ALIVE, f"Vault has it, for {int(facts.ttl.total_seconds())} s more"

        return self._fact(What.LEASE, lease.id, VAULT, ask, due=due)

    def _credential(self, lease: Lease, *, due: bool) -> Fact:
        if lease.target.kind in self.probers:
            return self.at(lease.target, lease.principal, issued_at=lease.issued_at, due=due)
        engine = self.engines.get(lease.engine)
        unasked = "" if engine is None else engine.unasked

        def nobody() -> tuple[Found, str]:
            return Found.UNKNOWN, unasked or f"nobody can ask {lease.target.name}"

        return self._fact(What.CREDENTIAL, lease.principal, lease.target.name, nobody, due=due)

    def _fact(self, what: What, name: str, place: str, ask: Callable[[], tuple[Found, str]], *, due: bool) -> Fact:
        found, evidence = Found.UNKNOWN, self._silent.get(place, "")
        if not evidence:
            try:
                found, evidence = ask()
            except VaultRefusedError as error:
                evidence = error.detail
            except VaultUnavailableError as error:
                evidence = self._silent[VAULT] = error.detail
            except TargetUnavailableError as error:
                evidence = error.detail
                if place in self.servers:
                    self._silent[place] = evidence
        return Fact(what=what, name=name, place=place, found=found, evidence=evidence, at=self.clock.now(), due=due)
