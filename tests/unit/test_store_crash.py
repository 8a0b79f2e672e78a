"""Kill -9 of a process that writes, again and again: nothing half, nothing lost that was told to be kept (P4, P6)."""

import random
import subprocess
import sys
import time
from pathlib import Path

from controlplane.audit.chain import Intact, verify
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, State
from controlplane.stores.sql import SqlStore, open_store
from controlplane.testing.store import AUDIT_KEY

KILLS = 10
WRITER = """
import os, sys, threading
from controlplane.model.event import Kind
from controlplane.model.grant import Step, Why
from controlplane.model.lease import Accessor, Receipt
from controlplane.stores.sql import open_store
from controlplane.testing.clock import START
from controlplane.testing.store import AUDIT_KEY, sample_event, sample_grant, sample_lease

store = open_store(sys.argv[1], audit_key=AUDIT_KEY)

def say(text):
    os.write(1, f"{text}\\n".encode())  # one write, so that a killed process has said all of it or nothing

def live(first):
    for number in range(first, first + 10_000):
        grant = sample_grant(number)
        with store.transaction() as tx:
            tx.add(grant, sample_event(number, Kind.GRANT_ALLOWED, grant.id))
        say(f"added {number}")
        active = grant.after(Step.DELIVER, issued_at=START, accessor=Accessor("a"))
        with store.transaction() as tx:
            tx.add_leases(grant.id, [sample_lease(number)], sample_event(number, Kind.LEASE_ISSUED, grant.id))
            tx.save(active, sample_event(number, Kind.GRANT_ISSUED, grant.id))
        ending = active.after(Step.END, why=Why.COMPLETED, revoking_at=START)
        with store.transaction() as tx:
            tx.save(ending, sample_event(number, Kind.GRANT_ENDED, grant.id))
        gone = ending.after(Step.CONFIRM_GONE, revoked_at=START, receipt=Receipt(ended=()), due_at=None)
        with store.transaction() as tx:
            tx.save(gone, sample_event(number, Kind.GRANT_REVOKED, grant.id))
        say(f"revoked {number}")

for thread in range(3):
    threading.Thread(target=live, args=(int(sys.argv[2]) + thread * 10_000,)).start()
say("ready")
"""
TOLD = {
    State.ISSUING: [Kind.GRANT_ALLOWED],
    State.ACTIVE: [Kind.GRANT_ALLOWED, Kind.LEASE_ISSUED, Kind.GRANT_ISSUED],
    State.REVOKING: [Kind.GRANT_ALLOWED, Kind.LEASE_ISSUED, Kind.GRANT_ISSUED, Kind.GRANT_ENDED],
    State.REVOKED: [Kind.GRANT_ALLOWED, Kind.LEASE_ISSUED, Kind.GRANT_ISSUED, Kind.GRANT_ENDED, Kind.GRANT_REVOKED],
}
"""Which events stand in the log for a grant in that state: exactly these, in this order."""


def write_and_be_killed(url: str, first: int, alive: float) -> list[str]:
    """What a writing process said before it was killed `alive` seconds after its first words."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(first)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        said = [process.stdout.readline()]
        time.sleep(alive)  # not to wait for something: this is when the axe falls
        process.kill()
        said += process.stdout.readlines()
    words = [line.decode().strip() for line in said]
    assert "Traceback (most recent call last):" not in words, "\n".join(words)
    return words


def everything(store: SqlStore) -> dict[int, Grant]:
    found: dict[int, Grant] = {}
    before = None
    while page := store.grants(before=before, limit=1_000):
        found |= {int(grant.id.removeprefix("gr_")): grant for grant in page}
        before = page[-1].id
    return found


def check(store: SqlStore) -> dict[int, Grant]:
    links = store.links(limit=1_000_000)
    assert isinstance(verify(links, store.head(), AUDIT_KEY), Intact)
    told: dict[str | None, list[Kind]] = {}
    for link in links:
        told.setdefault(link.event.grant, []).append(link.event.kind)
    grants = everything(store)
    assert {grant.id: TOLD[grant.state] for grant in grants.values()} == told
    for grant in grants.values():
        assert bool(store.leases(grant.id)) == (grant.state is not State.ISSUING)
    return grants


def test_g15_after_every_kill_the_store_opens_and_holds_what_it_said(tmp_path: Path) -> None:
    url, chance = f"sqlite:///{tmp_path}/store.db", random.Random(20260105)  # noqa: S311 # seeded: it decides when the axe falls
    said: list[str] = []
    for kill in range(KILLS):
        said += write_and_be_killed(url, kill * 1_000_000, chance.uniform(0.0, 0.25))
        store = open_store(url, audit_key=AUDIT_KEY)
        grants = check(store)
        for words in said:
            match words.split():
                case ["added", number]:
                    assert int(number) in grants, words
                case ["revoked", number]:
                    assert grants[int(number)].state is State.REVOKED, words
                case _:
                    assert words == "ready"
        store.close()
    assert len(said) > KILLS, "nothing was written between the kills"
