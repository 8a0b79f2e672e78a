"""Nobody asks so often that others wait, and nothing of that ever delays what ends access (A17, A19, A34)."""

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any, cast

import anyio.to_thread
import httpx
import pytest
from fastapi import FastAPI

from controlplane.http.app import create_app
from controlplane.http.rates import Buckets, Rates
from controlplane.model.identity import WorkloadId
from controlplane.model.rate import parse_rate
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane
from controlplane.wiring.plane import ControlPlane

ME, YOU = WorkloadId("wl_me"), WorkloadId("wl_you")


class Watch:
    """A clock in seconds that is turned by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_what_it_holds_and_fills_up_in_its_span() -> None:  # A17
    watch = Watch()
    buckets = Buckets(parse_rate("60/m"), now=watch)
    assert [buckets.take(ME) for _ in range(60)] == [None] * 60
    assert buckets.take(ME) == timedelta(seconds=1)
    assert buckets.take(YOU) is None
    watch.now += 0.5
    assert buckets.take(ME) == timedelta(seconds=0.5)
    watch.now += 0.5
    assert buckets.take(ME) is None
    assert buckets.take(ME) is not None
    watch.now += 3600
    assert [buckets.take(ME) for _ in range(60)] == [None] * 60
    assert buckets.take(ME) is not None


def test_ten_thousand_requests_get_no_more_than_the_bucket_holds() -> None:  # A17
    buckets = Buckets(parse_rate("100/m"), now=Watch())
    assert sum(buckets.take(ME) is None for _ in range(10_000)) == 100


def test_however_many_ask_no_more_buckets_are_kept_than_agreed() -> None:  # A17
    buckets = Buckets(parse_rate("1/h"), now=Watch(), most=100)
    for number in range(10_000):
        assert buckets.take(WorkloadId(f"wl_{number}")) is None
    assert len(buckets) == 100
    assert buckets.take(WorkloadId("wl_9999")) is not None


def test_threads_share_a_bucket_to_the_last_drop() -> None:
    buckets, given = Buckets(parse_rate("500/h"), now=Watch()), list[object]()
    threads = [threading.Thread(target=lambda: given.extend(buckets.take(ME) for _ in range(200))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert given.count(None) == 500


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "agent-*"}}]))


def asked(app: FastAPI, plane: FakePlane, *requests: tuple[str, str], subject: str = "agent-1") -> list[httpx.Response]:
    headers = {"Authorization": f"Bearer {plane.issuer.mint(subject).reveal()}"}

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as client:
            return [await client.request(method, path, headers=headers) for method, path in requests]

    return asyncio.run(ask())


def limited(plane: FakePlane, *, asking: str, ending: str = "100/h") -> FastAPI:
    limits = Rates(asking=Buckets(parse_rate(asking), now=Watch()), ending=Buckets(parse_rate(ending), now=Watch()))
    return create_app(cast("ControlPlane", plane), worker=False, limits=limits)


def test_who_asks_too_often_is_429_with_the_time_to_come_back_and_others_are_served(plane: FakePlane) -> None:  # A17
    app = limited(plane, asking="2/m")
    answers = asked(app, plane, *[("GET", "/v1/grants")] * 3)
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate-limited"
    assert answers[2].headers["retry-after"] == "30"
    assert asked(app, plane, ("GET", "/v1/grants"), subject="agent-2")[0].status_code == 200


def test_who_asked_too_often_can_still_finish(plane: FakePlane) -> None:  # A19
    grant = plane.ask(plane.agent("agent-1")).grant.id
    app = limited(plane, asking="1/h")
    asked(app, plane, *[("GET", "/v1/grants")] * 5)
    (answer,) = asked(app, plane, ("POST", f"/v1/grants/{grant}/finish"))
    assert (answer.status_code, answer.json()["grant"]["state"]) == (202, "revoking")


def test_finishing_has_a_bucket_of_its_own(plane: FakePlane) -> None:  # A19
    app = limited(plane, asking="1/h", ending="2/h")
    finish = ("POST", f"/v1/grants/gr_{'a' * 24}/finish")
    assert [answer.status_code for answer in asked(app, plane, *[finish] * 3)] == [404, 404, 429]
    assert asked(app, plane, ("GET", "/v1/grants"))[0].status_code == 200


def test_a_bad_token_takes_nothing_from_whose_name_it_bears(plane: FakePlane) -> None:  # A17
    app = limited(plane, asking="1/h")
    forged = plane.issuer.forge({}, plane.issuer.claims("agent-1"), signature=b"\0" * 64).reveal()

    async def flood() -> set[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as client:
            bad = {"Authorization": f"Bearer {forged}"}
            return {(await client.get("/v1/grants", headers=bad)).status_code for _ in range(50)}

    assert asyncio.run(flood()) == {401}
    assert asked(app, plane, ("GET", "/v1/grants"))[0].status_code == 200


def test_finishing_never_waits_for_those_who_ask(plane: FakePlane) -> None:  # A19, A34, P06
    """Every thread of those who ask hangs in Vault; finishing is answered, and the next who asks is told `busy`."""
    grant = plane.ask(plane.agent("agent-1")).grant.id
    app = limited(plane, asking="9999/s")
    release = threading.Event()
    headers = {"Authorization": f"Bearer {plane.issuer.mint('agent-1').reveal()}"}

    async def story() -> tuple[httpx.Response, httpx.Response]:
        threads = anyio.to_thread.current_default_thread_limiter()
        hanging = [
            asyncio.create_task(anyio.to_thread.run_sync(release.wait)) for _ in range(int(threads.total_tokens) + 200)
        ]
        while threads.statistics().tasks_waiting < 200:  # noqa: ASYNC110 # others move it
            await asyncio.sleep(0.001)
        try:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as client:
                async with asyncio.timeout(60):
                    finished = await client.post(f"/v1/grants/{grant}/finish", headers=headers)
                    busy = await client.get("/v1/grants", headers=headers)
                    assert (await client.get("/healthz")).status_code == 200
        finally:
            release.set()
            await asyncio.gather(*hanging)
        return finished, busy

    finished, busy = asyncio.run(story())
    assert finished.status_code == 202
    assert (busy.status_code, busy.json()["code"], busy.headers["retry-after"]) == (503, "busy", "1")


def test_p06_when_all_agents_come_back_at_once_each_gets_his_grant_or_is_told_when_to_ask_again(
    plane: FakePlane,
) -> None:
    app = limited(plane, asking="9/s")
    agents = [f"agent-{number}" for number in range(300)]
    vault_is_back, request = threading.Event(), plane.request

    def slow(*given: Any, **more: Any) -> Any:  # noqa: ANN401 # as RequestGrant
        assert vault_is_back.wait(60)
        return request(*given, **more)

    cast("Any", plane).request = slow

    async def ask(client: httpx.AsyncClient, agent: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {plane.issuer.mint(agent).reveal()}"}
        wish = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
        return await client.post("/v1/grants", json=wish, headers=headers)

    async def story() -> tuple[list[httpx.Response], list[httpx.Response], list[httpx.Response]]:
        threads = anyio.to_thread.current_default_thread_limiter()
        early, late = agents[:-50], agents[-50:]
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as client:
            waiting = [asyncio.create_task(ask(client, agent)) for agent in early]
            try:
                while threads.statistics().tasks_waiting < 200:  # noqa: ASYNC110 # others move it
                    await asyncio.sleep(0.001)
                told = await asyncio.gather(*(ask(client, agent) for agent in late))
            finally:
                vault_is_back.set()
            served = await asyncio.gather(*waiting)
            again = await asyncio.gather(*(ask(client, agent) for agent in late))
        return served, told, again

    served, told, again = asyncio.run(story())
    assert {(answer.status_code, answer.json()["code"], answer.headers["retry-after"]) for answer in told} == {
        (503, "busy", "1")
    }
    assert [answer.status_code for answer in (*served, *again)] == [201] * 300
    assert len({answer.json()["grant"]["id"] for answer in (*served, *again)}) == 300


def test_strangers_who_ask_whether_it_is_ready_make_it_look_once_a_second(plane: FakePlane) -> None:  # A17
    looks = 0

    def look() -> dict[str, str]:
        nonlocal looks
        looks += 1
        return {}

    cast("Any", plane).missing = look
    app = limited(plane, asking="1/h")

    async def flood() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door") as client:
            answers = await asyncio.gather(*(client.get("/readyz") for _ in range(50)))
            assert {answer.status_code for answer in answers} == {200}

    began = time.monotonic()
    asyncio.run(flood())
    assert looks <= 1 + (time.monotonic() - began)


def test_every_route_that_ends_access_says_so_in_its_description(plane: FakePlane) -> None:  # A19
    app = create_app(cast("ControlPlane", plane), worker=False)
    paths = cast("dict[str, dict[str, dict[str, Any]]]", app.openapi()["paths"])
    ending = {path for path, item in paths.items() for operation in item.values() if "ending" in operation["tags"]}
    assert "/v1/grants/{id}/finish" in ending
    assert ending >= {path for path in paths if path.rpartition("/")[2] in {"finish", "freezes", "cut", "revoke"}}
