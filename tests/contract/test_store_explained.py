"""Whatever a preview is asked for, PostgreSQL finds it by an index, and the names of leases pass by unkept (I01)."""

import tracemalloc
from contextlib import closing

import psycopg
import pytest

from benchmarks.crowd import Crowd
from benchmarks.preview import selections
from controlplane.selectors import selection, selectors
from controlplane.stores.sql import open_store
from controlplane.testing.clock import START
from controlplane.testing.explained import explained, listening
from controlplane.testing.store import AUDIT_KEY, sample_grant

_GROWING = {"grants", "leases", "notes", "approvals", "tasks"}


@pytest.mark.servers
def test_i01_a_preview_by_any_selector_reads_no_table_whole(url: str) -> None:
    crowd = Crowd(count=1_200, open=400, until=START)
    crowd.fill(url)
    texts = selections(crowd)
    assert {text.partition("=")[0].partition("<")[0].rstrip("!>").partition(".")[0] for text in texts} >= {*selectors()}
    with closing(open_store(url, audit_key=AUDIT_KEY)) as store:
        for text in texts:
            with listening() as heard:
                seen = store.survey(selection(text), START)
                found = store.open_selected(selection(text), START, limit=10)
            assert seen.of == crowd.open, text
            assert len(found) == min(seen.count, 10), text
            plans = explained(url, heard, whole_tables=False)
            assert len(plans) == 5, text
            assert not _GROWING & frozenset[str]().union(*(plan.read_whole for plan in plans)), text
            used = frozenset[str]().union(*(plan.indexes for plan in plans))
            assert "notes_by_key_and_value" not in used, f"{text}: it would read the notes of all that ever was"


@pytest.mark.servers
def test_i01_the_names_of_leases_pass_by_and_are_not_kept(url: str) -> None:
    many, grant = 50_000, sample_grant()
    with closing(open_store(url, audit_key=AUDIT_KEY)) as store:
        with store.transaction() as tx:
            tx.add(grant)
        with psycopg.connect(url) as owner:
            owner.execute(
                "INSERT INTO leases (id, grant_id, scope, engine, path, target_kind, target_name, principal, issued_at,"
                " expires_at) SELECT n, %s, 'orders', 'database', 'p', 'postgresql', 'orders-' || n %% 2, 'v-' || n,"
                " now(), now() FROM generate_series(1, %s) AS n",
                (grant.id, many),
            )
        store.survey(selection("all"), START)
        tracemalloc.start()
        try:
            seen = store.survey(selection("all"), START)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert [(leases.target, leases.count) for leases in seen.leases] == [
        ("orders-0", many // 2),
        ("orders-1", many // 2),
    ]
    assert peak < 2_000_000, "a row of each would be several times as much"
