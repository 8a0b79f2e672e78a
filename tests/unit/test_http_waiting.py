"""Waiting for an answer takes nothing from those who only ask: `?wait=` is bounded and has threads of its own (A17)."""

import asyncio
import threading
from contextlib import ExitStack
from typing import Any, cast

import anyio.to_thread
import httpx
import pytest

from controlplane.http.app import create_app
from controlplane.http.waiting import MOST_OF_ALL, MOST_OF_ONE, Waiters
from controlplane.model.grant import Grant, GrantId, Why
from controlplane.model.identity import WorkloadId
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane
from controlplane.wiring.plane import ControlPlane

AT_ONCE = 500


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "agent-*"}}]))


@pytest.mark.parametrize("waiting", ["GET /v1/grants/{id}?wait=1m", "POST /v1/grants/{id}/finish?wait=1m"])
def test_five_hundred_waiting_looks_of_one_agent_keep_no_other_from_an_answer(
    plane: FakePlane, waiting: str
) -> None:  # A17
    """The store hangs for every look of the one who waits; the other is served by threads that no look ever holds."""
    agent = plane.agent("agent-1")
    id = plane.ask(agent).grant.id
    plane.finish(agent, id, Why.COMPLETED)  # without a worker it goes on ending
    method, path = waiting.format(id=id).split()
    hangs, release, grant_of = threading.Event(), threading.Event(), plane.store.grant

    def slow(wanted: GrantId) -> Grant | None:
        if hangs.is_set() and threading.current_thread() is not threading.main_thread():
            assert release.wait(30)
        return grant_of(wanted)

    cast("Any", plane.store).grant = slow
    app = create_app(cast("ControlPlane", plane), worker=False)
    headers = {name: {"Authorization": f"Bearer {plane.issuer.mint(name).reveal()}"} for name in ("agent-1", "agent-2")}

    async def story() -> list[httpx.Response]:
        pool = anyio.to_thread.current_default_thread_limiter()
        threads = (pool, app.state.ending_threads)
        async with (
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://door", timeout=60) as client,
            asyncio.timeout(60),
        ):
            waiters: list[asyncio.Task[httpx.Response]] = []
            try:
                while len(waiters) < AT_ONCE:
                    one = client.request(method, path, headers=headers["agent-1"])
                    waiters.append(asyncio.create_task(one))
                    await asyncio.sleep(0)
                    while sum(each.statistics().tasks_waiting for each in threads) > 100:  # noqa: ASYNC110 # others move it
                        await asyncio.sleep(0.001)
                while sum(not each.done() for each in waiters) > MOST_OF_ONE:  # noqa: ASYNC110 # others move it
                    await asyncio.sleep(0.001)
                hangs.set()
                while app.state.waiters.threads.available_tokens:  # noqa: ASYNC110 # others move it
                    await asyncio.sleep(0.001)
                assert pool.borrowed_tokens == 0
                others = [await client.get("/v1/grants", headers=headers["agent-2"]) for _ in range(5)]
                assert {each.status_code for each in others} == {200}
                plane.work()
            finally:
                release.set()
            return await asyncio.gather(*waiters)

    answers = asyncio.run(story())
    states = [answer.json()["grant"]["state"] for answer in answers]
    assert {answer.status_code for answer in answers} == {200 if method == "GET" else 202}
    assert (states.count("revoking"), states.count("revoked")) == (AT_ONCE - MOST_OF_ONE, MOST_OF_ONE)
    assert len(app.state.waiters) == 0


def test_no_more_wait_than_agreed_of_one_workload_and_of_all() -> None:  # A17
    waiters = Waiters()
    with ExitStack() as waiting:
        everybody = [WorkloadId(f"wl_{number}") for number in range(100)]
        may = [waiting.enter_context(waiters.enter(each)) for each in everybody for _ in range(MOST_OF_ONE + 5)]
        assert may[: MOST_OF_ONE + 5] == [True] * MOST_OF_ONE + [False] * 5
        assert may.count(True) == len(waiters) == MOST_OF_ALL
    assert len(waiters) == 0
    with waiters.enter(everybody[0]) as again:
        assert again
