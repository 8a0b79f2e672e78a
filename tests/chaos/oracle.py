"""Holds what lives against what is granted: asks PostgreSQL, OpenBao and the store themselves, never the control plane.

The claim: no credential is alive whose grant is not active, and no active grant has lost its credential. One exception
is honest: a login that OpenBao made and lost before it wrote the lease (docs/vault-facts.md, fact 5). Nobody can end
that one, and nobody has its password. It counts as that only if no grant and no lease knows it, the receipt of a grant
that was interrupted at its path says so, the reconciler has reported it, and its own clock ends it.
"""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, create_engine, text

from controlplane.audit.chain import Intact
from controlplane.audit.verify import verify_trail
from controlplane.dev.orders import DATABASE
from controlplane.dev.stage import Stage
from controlplane.engines.dialects.terms.group import group_of
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import VaultRefusedError
from controlplane.stores.trail import open_trail
from controlplane.vault.client import part
from tests.chaos.agents import Told
from tests.chaos.site import Site

_NOT_OVER: Final = {"pending", "approved", "issuing", "active"}
_EARLY, _LATE = timedelta(seconds=2), timedelta(seconds=10)
"""How much sooner and later than the store says, a lease may end: Vault counts whole seconds from when it is asked."""
LONGEST: Final = timedelta(minutes=16)
"""The entitlement's maximum, and what PostgreSQL and OpenBao add to it."""
_LOGINS = """
    SELECT member.rolname, member.rolcanlogin, member.rolvaliduntil, array_agg(grouped.rolname)
      FROM pg_roles AS member
      LEFT JOIN pg_auth_members AS held ON held.member = member.oid
      LEFT JOIN pg_roles AS grouped ON grouped.oid = held.roleid
     WHERE member.rolname LIKE 'v-sh-%' AND member.rolname NOT LIKE '%-prober-%' GROUP BY 1, 2, 3
"""


_WITHOUT_A_YES = """
    SELECT id FROM grants WHERE entitlement = 'orders-agreed' AND issued_at IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM approvals WHERE approvals.grant_id = grants.id)
"""
_GIVEN = """
    SELECT kind, grant_id, at, subject FROM events JOIN grants ON grants.id = events.grant_id
     WHERE kind IN ('grant.issued', 'grant.renewed')
"""


@dataclass(frozen=True, kw_only=True)
class Login:
    """A user of PostgreSQL that may log in."""

    name: str
    until: datetime | None
    groups: Sequence[str]


@dataclass(kw_only=True)
class Alive:
    """All there is, at one instant at which nothing is on its way any more."""

    grants: Mapping[str, Mapping[str, Any]]
    leases: Mapping[str, Mapping[str, Any]]
    orphans: frozenset[str]
    tokens: Mapping[str, str]
    """Grants, by accessor."""
    zombies: int
    vault_leases: Mapping[str, datetime]
    """And when they end there."""
    tasks: Sequence["Row"]
    logins: Mapping[str, Login]


@dataclass
class Finding:
    """What is amiss, and the logins that OpenBao lost."""

    amiss: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    zombies: int = 0


Row = Mapping[str, Any]


def grants(site: Site) -> Sequence[Row]:
    """Every grant, as it stands in the store."""
    with _store(site) as store:
        return [dict(row) for row in store.execute(text("SELECT * FROM grants ORDER BY requested_at")).mappings()]


def look(site: Site) -> Alive:
    """At everything."""
    with _store(site) as store:
        rows = {str(row["id"]): dict(row) for row in store.execute(text("SELECT * FROM grants")).mappings()}
        leases = {str(row["id"]): dict(row) for row in store.execute(text("SELECT * FROM leases")).mappings()}
        tasks = [dict(row) for row in store.execute(text("SELECT * FROM tasks")).mappings()]
        orphans = frozenset(str(row[0]) for row in store.execute(text("SELECT name FROM orphans WHERE kind = 'login'")))
    tokens, zombies = _tokens(site)
    return Alive(
        grants=rows,
        leases=leases,
        orphans=orphans,
        tokens=tokens,
        zombies=zombies,
        vault_leases=_leases(site),
        tasks=tasks,
        logins=_logins(site),
    )


def compare(site: Site, there: Alive, told: Told) -> Finding:
    """What the claim does not allow of what is there."""
    found = Finding(zombies=there.zombies)
    active = {id: grant for id, grant in there.grants.items() if grant["state"] == "active"}
    held = {id: lease for id, lease in there.leases.items() if lease["grant_id"] in active}
    accessors = {grant["accessor"]: id for id, grant in active.items()}
    found.amiss += [f"token of {id} is alive" for at, id in there.tokens.items() if at not in accessors]
    found.amiss += [f"lease {id} is alive" for id in there.vault_leases.keys() - held.keys()]
    owned = {lease["principal"] for lease in held.values()}
    for login in (login for name, login in there.logins.items() if name not in owned):
        why = _not_honest(there, login)
        if why is None:
            found.lost.append(login.name)
        else:
            found.amiss.append(f"{login.name} can log in: {why}")
    found.amiss += [f"{id} is active without its token" for at, id in accessors.items() if at not in there.tokens]
    for id, lease in held.items():
        if id not in there.vault_leases:
            found.amiss.append(f"{lease['grant_id']} is active and has lost its lease")
        elif lease["principal"] not in there.logins:
            found.amiss.append(f"{lease['grant_id']} is active and {lease['principal']} cannot log in")
    bare = active.keys() - {lease["grant_id"] for lease in held.values()}
    found.amiss += [f"{id} is active and never had a credential" for id in bare]
    found.amiss += [wrong for id, lease in held.items() if (wrong := _other_end(there, active[lease["grant_id"]], id))]
    found.amiss += _left_alone(there)
    found.amiss += _untold(site, there, told)
    found.amiss += _unagreed(site, told)
    found.amiss += _untrue(site, there)
    return found


def _other_end(there: Alive, grant: Row, lease: str) -> str | None:
    """That a lease ends at another time than its grant, which nobody renews just now; None if it does not."""
    at, wanted = there.vault_leases.get(lease), instant(grant["expires_at"])
    if at is None or grant["renewing_to"] is not None or wanted - _EARLY <= at <= wanted + _LATE:
        return None
    return f"{grant['id']} ends at {wanted}, and its lease {lease} at {at}"


def _left_alone(there: Alive) -> list[str]:
    """What should have ended with what it is a part of."""
    finished = {(task["workload"], task["id"]) for task in there.tasks if task["finished_at"] is not None}
    above = {(task["workload"], task["id"]): task["parent"] for task in there.tasks}

    def is_over(workload: str, task: str | None) -> bool:
        return task is not None and ((workload, task) in finished or is_over(workload, above.get((workload, task))))

    going_on = [grant for grant in there.grants.values() if grant["state"] in _NOT_OVER]
    return [
        *(f"{one['id']} goes on, and its task is over" for one in going_on if is_over(one["workload"], one["task"])),
        *(
            f"{one['id']} goes on, and {one['under']} does not"
            for one in going_on
            if one["under"] is not None and there.grants[one["under"]]["state"] != "active"
        ),
    ]


def _unagreed(site: Site, told: Told) -> list[str]:
    """What was granted without the yes that it needs, or to somebody who was frozen just then."""
    with _store(site) as store:
        bare = store.execute(text(_WITHOUT_A_YES)).scalars().all()
        given = store.execute(text(_GIVEN)).mappings().all()
    return [
        *(f"{id} was issued, and nobody had agreed" for id in bare),
        *(
            f"{event['kind']} of {event['grant_id']} at {event['at']}, while its subject was frozen"
            for frozen in told.frozen
            for event in given
            if event["subject"] == frozen.subject
            and frozen.since < instant(event["at"])
            and (frozen.until is None or instant(event["at"]) < frozen.until)
        ),
    ]


def _not_honest(there: Alive, login: Login) -> str | None:
    """Why this login, which no active grant holds, is not one that OpenBao lost; None if it is."""
    if any(lease["principal"] == login.name for lease in there.leases.values()):
        return "a grant that is not active made it"
    if login.until is None or login.until > datetime.now(UTC) + LONGEST:
        return f"it never ends, or only at {login.until}"
    if f"orders/{login.name}" not in there.orphans:
        return "nobody has reported it"
    owned_up = [
        grant["id"]
        for grant in there.grants.values()
        if grant["state"] == "revoked"
        and any(group_of(path.rpartition("/")[2]) in login.groups for path in _paths(grant))
        and not all(end["verified"] for end in _receipt(grant)["ended"])
    ]
    return None if owned_up else "every receipt says that all is verified gone"


def _untold(site: Site, there: Alive, told: Told) -> list[str]:
    """What was acknowledged and is not so."""
    found = [f"{id} was granted, and the store does not know it" for id in told.granted if id not in there.grants]
    over = {"revoking", "irrevocable", "revoked", "lapsed", "denied"}
    found += [
        f"the end of {id} was acknowledged, and it is {there.grants[id]['state']}"
        for id in told.ended
        if id in there.grants and there.grants[id]["state"] not in over
    ]
    found += [
        f"the end of task {task} was acknowledged, and it is not finished"
        for _, task in told.finished
        if not any(row["id"] == task and row["finished_at"] is not None for row in there.tasks)
    ]
    found += [
        f"{id} was said to live until {until}, and ends at {ends}"
        for id, until in told.until.items()
        if there.grants[id]["state"] == "active" and (ends := instant(there.grants[id]["expires_at"])) < until
    ]
    decided = {"approved": "pending", "denied": "pending approved issuing active revoking irrevocable revoked lapsed"}
    found += [
        f"{id} was {state}, and is {there.grants[id]['state']}"
        for id, state in told.decided.items()
        if there.grants[id]["state"] in decided[state].split()
    ]
    stage = Stage(site.stack.project)
    for id, credential in told.credentials:
        active = id in there.grants and there.grants[id]["state"] == "active"
        if stage.opens(credential) != active:
            found.append(f"the credential of {id} {'is refused' if active else 'still works'}")
    return found


def _untrue(site: Site, there: Alive) -> list[str]:
    """Receipts and records that contradict what is there, or themselves."""
    found: list[str] = []
    for id, grant in there.grants.items():
        if grant["state"] != "revoked":
            continue
        ended = _receipt(grant)["ended"]
        found += [
            f"the receipt of {id} calls {end['principal']} verified gone"
            for end in ended
            if end["verified"] and end["principal"] in there.logins
        ]
        mine = {lease: row["path"] for lease, row in there.leases.items() if row["grant_id"] == id}
        told = {end["lease"] for end in ended}
        # One that was saved when the receipt stood is told of by its path, as what may have been made there.
        if missing := {lease for lease, path in mine.items() if not {lease, path} & told}:
            found.append(f"the receipt of {id} says nothing of {missing}")
    with _store(site) as store:
        rows = store.execute(text("SELECT grant_id, kind, count(*) FROM events GROUP BY 1, 2 HAVING count(*) > 1"))
        once = {"grant.allowed", "grant.issued", "grant.ended", "grant.revoked"}
        found += [f"{grant}: {kind} {number} times" for grant, kind, number in rows if grant and kind in once]
    with closing(open_trail(site.url)) as trail:
        chain = verify_trail(trail, Stage(site.stack.project).audit_key)
    return found if isinstance(chain, Intact) else [*found, f"the audit chain is broken: {chain}"]


def _receipt(grant: Mapping[str, Any]) -> Mapping[str, Any]:
    return json.loads(grant["receipt"])


def _paths(grant: Mapping[str, Any]) -> Sequence[str]:
    return json.loads(grant["paths"])


@contextmanager
def _store(site: Site) -> Generator[Connection]:
    engine = create_engine(site.url.replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _tokens(site: Site) -> tuple[Mapping[str, str], int]:
    """Task tokens by accessor, and how many of them are neither dead nor alive."""
    found: dict[str, str] = {}
    zombies = 0
    vault = site.seer.vault
    for accessor in vault.list("auth/token/accessors"):
        try:
            answer = vault.adapter.request("POST", "auth/token/lookup-accessor", json={"accessor": accessor})
        except VaultRefusedError:
            continue  # it ended since it was listed
        data: JsonObject = part(answer, "data")
        metadata = data.get("meta")
        if isinstance(metadata, dict) and "grant" in metadata:
            if data.get("num_uses") == -1:
                zombies += 1
            else:
                found[accessor] = str(metadata["grant"])
    return found, zombies


def _leases(site: Site) -> Mapping[str, datetime]:
    creds, vault = "database/creds", site.seer.vault
    roles = [role for role in vault.list(f"sys/leases/lookup/{creds}") if "-prober-" not in role]
    paths = [f"{creds}/{role.strip('/')}" for role in roles]
    found: dict[str, datetime] = {}
    for lease in (f"{path}/{lease}" for path in paths for lease in site.seer.leases(path)):
        with suppress(VaultRefusedError):  # it ended since it was listed
            known = part(vault.adapter.request("PUT", "sys/leases/lookup", json={"lease_id": lease}), "data")
            found[lease] = datetime.fromisoformat(str(known["expire_time"]))
    return found


def instant(at: str | datetime) -> datetime:
    """As either store says it."""
    return datetime.fromisoformat(at) if isinstance(at, str) else at


def _logins(site: Site) -> Mapping[str, Login]:
    """Whoever may log in now."""
    with psycopg.connect(site.stack.postgres.owner.reveal(), dbname=DATABASE, autocommit=True) as database:
        rows = database.execute(_LOGINS).fetchall()
    now = datetime.now(UTC)
    return {
        name: Login(name=name, until=until, groups=groups)
        for name, able, until, groups in rows
        if able and (until is None or until > now)
    }
