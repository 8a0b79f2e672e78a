"""`/metrics`: what monitoring sees, who may see it, and that no label grows with what is asked for (L13)."""

from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from controlplane.metrics import Metrics
from controlplane.model.errors import StoreUnavailableError
from controlplane.model.grant import TaskId
from controlplane.model.network import parse_network
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

Http = Callable[..., httpx.Response]


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def figures(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def series(text: str) -> set[str]:
    return set(figures(text))


def test_open_grants_are_counted_and_so_is_the_oldest_end_that_is_not_confirmed(plane: FakePlane, http: Http) -> None:
    plane.ask()
    stuck = plane.ask(task=TaskId("T-2")).grant
    plane.vault.target.down = True
    plane.end(stuck.id)
    plane.clock.advance(timedelta(seconds=90))
    answer = http(plane, "GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found = figures(answer.text)
    assert found['shorthold_grants{state="active"}'] == 1
    assert found['shorthold_grants{state="revoking"}'] == 1
    assert found['shorthold_grants{state="pending"}'] == 0
    name = 'shorthold_oldest_unconfirmed_revocation_seconds{engine="database",state="revoking"}'
    assert 90 <= found[name] < 92
    assert found["shorthold_store_up"] == 1


def test_revocations_claims_and_orphans_are_counted(plane: FakePlane, http: Http) -> None:
    plane.end(plane.ask().grant.id)
    plane.vault.target.users.add("v-lost")
    plane.vault.target.groups["v-lost"] = "sh-orders-read-0a1b2c3d-orders"
    plane.reconcile()
    found = figures(http(plane, "GET", "/metrics").text)
    assert found['shorthold_revocations_total{verified="yes"}'] == 1
    assert found["shorthold_claims_total"] == 1
    assert found['shorthold_orphans{kind="login"}'] == 1


def test_l09_events_that_a_sink_was_not_told_of_are_counted(plane: FakePlane) -> None:
    metrics = Metrics(clock=plane.clock, store=plane.store, cursors=plane.store.cursors, sinks=["pager", "new"])
    plane.store.cursors.claim("pager", plane.clock.now(), hold=timedelta(minutes=1), start=0)
    plane.ask()
    found = figures(metrics.text().decode())
    assert found['shorthold_sink_behind_events{sink="pager"}'] == len(plane.events())
    assert found['shorthold_sink_behind_events{sink="new"}'] == 0


def test_l13_no_label_grows_with_what_is_asked_for(plane: FakePlane, http: Http) -> None:
    def labels() -> set[str]:
        for path in ("/v1/grants/gr_x", "/nowhere", "/healthz"):
            http(plane, "GET", path)
        http(plane, "MADEUP", "/healthz")
        plane.metrics.vault_call("auth/shorthold/login", 200, 0.1)
        http(plane, "GET", "/metrics")
        return series(http(plane, "GET", "/metrics").text)

    plane.end(plane.ask().grant.id)
    before = labels()
    for number in range(20):
        grant = plane.ask(plane.agent(), task=TaskId(f"T-{number}")).grant
        plane.end(grant.id)
        http(plane, "GET", f"/v1/grants/{grant.id}")
        http(plane, "GET", f"/nowhere/{number}")
        http(plane, f"VERB{number}", "/healthz")
        plane.metrics.vault_call(f"database/creds/sh-{number}", 200, 0.1)
    after = labels()
    known = {line for line in after - before if "vault_call" not in line}
    assert known == set()
    whole = http(plane, "GET", "/metrics").text
    for word in ("gr_", "T-1", "repo:", "wl_", "orders-read", "nowhere", "VERB", "sh-1"):
        assert word not in whole, word


def test_from_elsewhere_there_is_no_such_page(plane: FakePlane, http: Http) -> None:
    plane.monitoring = (parse_network("10.1.0.0/16"),)
    assert http(plane, "GET", "/metrics").status_code == 404
    assert http(plane, "GET", "/metrics", headers={"X-Forwarded-For": "10.1.2.3"}).status_code == 404
    plane.trusted_proxies = (parse_network("127.0.0.0/8"),)
    assert http(plane, "GET", "/metrics", headers={"X-Forwarded-For": "10.1.2.3"}).status_code == 200


def test_while_the_store_is_down_the_page_says_so(plane: FakePlane, http: Http) -> None:
    plane.store.down = "the disk is full"
    found = figures(http(plane, "GET", "/metrics").text)
    assert found["shorthold_store_up"] == 0
    with pytest.raises(StoreUnavailableError):
        plane.store.tallies()
