"""Holds what lives in memory against what is granted: the same claim as that of the oracle on real servers."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from controlplane.model.event import Kind
from controlplane.model.grant import TERMINAL, GrantId, State
from controlplane.model.orphan import OrphanKind
from tests.chaos.deeds import EVERYBODY

if TYPE_CHECKING:
    from tests.chaos.memory import Machine

ENDING: Final = {State.REVOKING, State.IRREVOCABLE}
SKEW: Final = timedelta(seconds=30)
"""As far as our clock may be off while it grants; by so much a grant may outlive its credential in the store."""


def amiss(machine: "Machine") -> list[str]:
    """Whatever is not as the claim says, asked of Vault and the target themselves."""
    vault = machine.vault
    looked = {at: facts for at in vault.tokens if (facts := vault.logins.facts(at)) is not None}
    tokens = {at: facts for at, facts in looked.items() if facts.num_uses >= 0}
    leases = {lease for path in vault.census.places() for lease in vault.leases.under(path)}
    users = set(vault.target.users)
    active = {grant.id: grant for grant in machine.store.grants(states=[State.ACTIVE], limit=1000)}
    held = {lease.id: (id, lease) for id in active for lease in machine.store.leases(id)}
    found = [
        f"token {at} of {facts.metadata['grant']} is alive"
        for at, facts in tokens.items()
        if "grant" in facts.metadata and at not in {grant.accessor for grant in active.values()}
    ]
    found += [f"lease {id} is alive" for id in leases if id not in held]
    owned = {lease.principal for _, lease in held.values()}
    found += [f"user {user} can log in" for user in users - owned - machine.lost.keys()]
    still = {id for id, grant in active.items() if machine.now.now() < grant.expires_at - SKEW}
    found += [f"{id} has lost its token" for id in still if active[id].accessor not in tokens]
    found += [
        f"{id} has lost {lease.id}"
        for id, lease in held.values()
        if id in still and (lease.id not in leases or lease.principal not in users)
    ]
    found += [
        f"{id} ends before {lease.id}"
        for id, lease in held.values()
        if (facts := vault.leases.facts(lease.id)) is not None
        and facts.ttl > active[id].expires_at - machine.now.now() + SKEW
    ]
    return found + _untrue_receipts(machine, users) + _ungranted(machine)


def _ungranted(machine: "Machine") -> list[str]:
    """What goes on without what it is a part of, or was given against a freeze, or without a yes."""
    known = {grant.id: grant for grant in machine.store.grants(limit=1000)}
    found: list[str] = []
    for grant in (grant for grant in known.values() if grant.state not in ENDING | TERMINAL):
        if any(task.finished_at is not None for task in machine.store.lineage(grant.workload, grant.task)):
            found.append(f"{grant.id} goes on, and its task is over")
        if grant.under is not None and known[grant.under].state is not State.ACTIVE:
            found.append(f"{grant.id} goes on, and {grant.under} does not")
    for number, event in enumerate(machine.store.events()):
        if event.grant is None or event.kind not in {Kind.GRANT_ISSUED, Kind.GRANT_RENEWED}:
            continue
        id = GrantId(event.grant)
        name = known[id].entitlement
        frozen = {selection for selection, since in machine.frozen.items() if since <= number}
        if frozen & {EVERYBODY, f"entitlement={name}"}:
            found.append(f"{event.kind} of {id}, and it was frozen")
        if name == "agreed" and not machine.store.approvals(id):
            found.append(f"{event.kind} of {id}, and nobody had agreed")
    return found


def _untrue_receipts(machine: "Machine", users: set[str]) -> list[str]:
    found: list[str] = []
    for grant in machine.store.grants(states=[State.REVOKED], limit=1000):
        assert grant.receipt is not None
        there = [end.principal for end in grant.receipt.ended if end.verified and end.principal in users]
        found += [f"the receipt of {grant.id} calls {name} gone" for name in there]
        if grant.receipt.verified and grant.id in machine.lost.values():
            found.append(f"the receipt of {grant.id} knows nothing of the login that was lost")
    known = {orphan.name for orphan in machine.store.orphans() if orphan.kind is OrphanKind.LOGIN}
    unreported = [user for user in machine.lost if user in users and f"orders/{user}" not in known]
    return found + [f"nobody reported {user}" for user in unreported]
