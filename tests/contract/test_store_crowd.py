"""Writers that wait for a lock keep nobody from ending access: it is found, and Vault is asked (A34; P6)."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import cast

import psycopg
import pytest

from controlplane.audit.record import Record
from controlplane.dev.process import until
from controlplane.grants.finish import FinishGrant
from controlplane.model.errors import StoreUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import Why
from controlplane.model.lease import Accessor
from controlplane.ports import Leases
from controlplane.stores.sql import open_store
from controlplane.testing.plane import FakePlane
from controlplane.testing.spool import FakeSpool
from controlplane.testing.store import AUDIT_KEY, sample_event, sample_grant

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

CROWD = 40  # more than a process has connections
AT_LEAST = 10


def waiting(database: psycopg.Connection) -> int:
    """How many connections wait for a lock in this database."""
    asked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    row = database.execute(asked).fetchone()
    return 0 if row is None else row[0]


class AskedLeases:
    """What Vault was asked to revoke."""

    def __init__(self) -> None:
        self.asked: list[Accessor] = []

    def revoke_token(self, accessor: Accessor) -> None:
        self.asked.append(accessor)


def test_a34_while_every_writer_waits_for_a_lock_requests_are_503_and_what_is_finished_is_revoked_at_vault(
    url: str,
) -> None:
    plane, leases, spool, enough = FakePlane(), AskedLeases(), FakeSpool(), threading.Event()
    who = plane.agent()
    held = sample_grant(1, workload=who.workload, accessor=Accessor("accessor-1"))
    with closing(open_store(url, audit_key=AUDIT_KEY)) as store:
        finish = FinishGrant(
            clock=plane.clock,
            record=Record(clock=plane.clock, ids=plane.ids),
            store=store,
            leases=cast("Leases", leases),
            spool=spool,
            wake=lambda: None,
        )
        with store.transaction() as tx:
            tx.add(held, sample_event(1, grant=held.id))

        def ask(number: int) -> int:
            while True:
                try:
                    with store.transaction() as tx:
                        tx.append(sample_event(number))
                except StoreUnavailableError as error:
                    if enough.is_set():
                        return error.status
                else:
                    return 201

        with ThreadPoolExecutor(CROWD) as crowd, psycopg.connect(url) as other:
            other.execute("SELECT seq FROM audit_head FOR UPDATE")
            answers = [crowd.submit(ask, number) for number in range(2, CROWD + 2)]
            assert until(lambda: waiting(other) >= AT_LEAST, timedelta(seconds=60))
            assert store.grant(held.id) == held
            with pytest.raises(StoreUnavailableError):
                finish(who, held.id, Why.COMPLETED)
            assert leases.asked == ["accessor-1"]
            assert [event.kind for event in spool.waiting()] == [Kind.GRANT_ENDED]
            enough.set()
            assert {answer.result() for answer in answers} == {503}
        assert len(store.links()) == 1
        with store.transaction() as tx:  # and when the lock is gone, it serves again
            tx.append(sample_event(99))
