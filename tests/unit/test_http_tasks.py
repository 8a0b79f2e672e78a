"""Tasks over HTTP: names that are paths, finishing that waits, and what is told of a part."""

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def send(http: Http, plane: FakePlane, method: str, path: str, **more: Any) -> httpx.Response:
    token = plane.issuer.mint(AGENT, jti=plane.ids.new("t")).reveal()
    return http(
        plane, method, path, headers={"Authorization": f"Bearer {token}", "Idempotency-Key": token[-9:]}, **more
    )


def ask(http: Http, plane: FakePlane, task: str, parent: str | None = None) -> httpx.Response:
    body = {"entitlement": "orders-read", "task": task, "intent": "answer-question"}
    return send(http, plane, "POST", "/v1/grants", json=body if parent is None else {**body, "parent": parent})


@pytest.mark.parametrize("name", ["T-1", "a/b", "a//b", "a/../b", "a:b/c.d_e-f", "a/finish", "a/finish/b", "v1/tasks"])
def test_a_task_is_finished_under_whatever_name_it_may_have(http: Http, plane: FakePlane, name: str) -> None:
    assert ask(http, plane, name).status_code == 201
    quoted = name.replace("/", "%2F").replace(":", "%3A")
    answer = send(http, plane, "POST", f"/v1/tasks/{quoted}/finish")
    assert answer.status_code == 202
    assert answer.json()["task"]["task"] == name
    assert [grant["state"] for grant in answer.json()["grants"]] == ["revoking"]
    shown = send(http, plane, "GET", f"/v1/tasks/{quoted}")
    if name.endswith("/finish"):
        assert shown.status_code == 405
    else:
        assert (shown.status_code, shown.json()["task"]["why"]) == (200, "completed")


def test_a_slash_need_not_be_escaped(http: Http, plane: FakePlane) -> None:
    ask(http, plane, "jobs/7/step-2")
    assert send(http, plane, "GET", "/v1/tasks/jobs/7/step-2").json()["task"]["task"] == "jobs/7/step-2"
    assert send(http, plane, "POST", "/v1/tasks/jobs/7/step-2/finish").status_code == 202


@pytest.mark.parametrize("name", [".a", "a b", "a%09b", "-a", "a" * 129, "%F0%9F%92%A9"])
def test_what_is_no_name_of_a_task_is_refused_without_being_looked_up(http: Http, plane: FakePlane, name: str) -> None:
    for method, path in (("POST", f"/v1/tasks/{name}/finish"), ("GET", f"/v1/tasks/{name}")):
        answer = send(http, plane, method, path)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")


def test_finishing_waits_for_the_receipts_of_all(http: Http, plane: FakePlane) -> None:
    for task, parent in (("T-1", None), ("T-1", None), ("T-1/a", "T-1")):
        assert ask(http, plane, task, parent).status_code == 201
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.02):
            plane.work()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        answer = send(http, plane, "POST", "/v1/tasks/T-1/finish?wait=30s", json={"outcome": "failed"})
    finally:
        stop.set()
        worker.join()
    grants = answer.json()["grants"]
    assert {grant["state"] for grant in grants} == {"revoked"}
    assert all(grant["receipt"]["verified"] for grant in grants)
    assert sorted(grant["why"] for grant in grants) == ["failed", "failed", "parent-ended"]
    assert send(http, plane, "POST", "/v1/tasks/T-1/finish").json()["grants"] == []


def test_a_part_says_what_it_hangs_from_and_the_whole_what_its_parts_are(http: Http, plane: FakePlane) -> None:
    whole = ask(http, plane, "T-1").json()["grant"]
    part = ask(http, plane, "T-1/a", "T-1").json()["grant"]
    assert (whole["under"], part["under"]) == (None, whole["id"])
    shown = send(http, plane, "GET", "/v1/tasks/T-1").json()
    assert [each["task"] for each in shown["parts"]] == ["T-1/a"]
    assert [grant["id"] for grant in shown["grants"]] == [whole["id"]]
    told = send(http, plane, "GET", "/v1/tasks/T-1/a").json()["task"]
    assert (told["parent"], told["depth"]) == ("T-1", 2)


def test_a_refusal_is_403_with_a_stable_code(http: Http, plane: FakePlane) -> None:
    ask(http, plane, "T-1")
    send(http, plane, "POST", "/v1/tasks/T-1/finish")
    for task, parent, code in (("T-1", None, "task-finished"), ("T-2", "T-1", "parent-finished")):
        answer = ask(http, plane, task, parent)
        assert (answer.status_code, answer.json()["code"]) == (403, "denied")
        assert code in {why["code"] for why in answer.json()["reasons"]}
