"""Who may do what over HTTP: every route and every kind of caller, from one table (A01, A02, A03, A14, L16; C8)."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, cast

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from controlplane.http.app import create_app
from controlplane.model.access import Role, Standing
from controlplane.model.cut import Cut, CutId, Preview
from controlplane.model.event import Kind
from controlplane.model.freeze import FreezeId
from controlplane.model.grant import GrantId, State
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.wiring.plane import ControlPlane

Http = Callable[..., httpx.Response]

# A new route gets a line here, and in BODIES what has to be sent. `{id}` is the owner's active grant, or a freeze.
# `frozen` is the owner while everything is frozen; the four roles are people who ask for themselves.
TABLE: Final = """
                                anonymous bad expired owner other frozen approver responder platform auditor
POST /v1/grants                       401 401     401   201   403    423      403       403      403     403
GET  /v1/grants                       401 401     401   200   200    200      200       200      200     200
GET  /v1/grants/{id}                  401 401     401   200   404    200      404       200      200     200
POST /v1/grants/{id}/finish           401 401     401   202   404    202      404       404      404     404
POST /v1/grants/{id}/renew            401 401     401   200   404    423      404       404      404     404
POST /v1/grants/{id}/heartbeat        401 401     401   200   404    200      404       404      404     404
POST /v1/tasks/{task}/finish          401 401     401   202   404    202      404       404      404     404
GET  /v1/tasks/{task}                 401 401     401   200   404    200      404       404      404     404
POST /v1/grants/{id}/collect          401 401     401   409   404    409      404       404      404     404
POST /v1/grants/{id}/approve          401 401     401   403   403    403      404       403      403     403
POST /v1/grants/{id}/deny             401 401     401   403   403    403      404       403      403     403
GET  /v1/approvals                    401 401     401   403   403    403      200       403      403     403
GET  /v1/entitlements                 401 401     401   200   200    200      200       200      200     200
GET  /v1/entitlements/{name}          401 401     401   200   404    200      404       404      200     404
POST /v1/needs                        401 401     401   200   200    200      200       200      200     200
POST /v1/grants/{id}/review           401 401     401   403   403    403      404       404      403     403
GET  /v1/reviews                      401 401     401   403   403    403      200       200      403     200
POST /v1/freezes                      401 401     401   403   403    403      403       201      403     403
GET  /v1/freezes                      401 401     401   403   403    403      403       200      200     200
POST /v1/freezes/{id}/thaw            401 401     401   403   403    403      403       200      403     403
POST /v1/signals                      400 400     400   400   400    400      400       400      400     400
POST /v1/incidents/preview            401 401     401   403   403    403      403       200      403     403
POST /v1/incidents/cut                401 401     401   403   403    403      403       404      403     403
POST /v1/incidents/report             401 401     401   403   403    403      403       200      403     200
POST /v1/incidents/prove              401 401     401   403   403    403      403       200      403     200
POST /v1/whois                        401 401     401   403   403    403      403       200      403     200
GET  /v1/incidents                    401 401     401   403   403    403      403       200      200     200
GET  /v1/incidents/{id}               401 401     401   403   403    403      403       200      200     200
GET  /v1/incidents/{id}/events        401 401     401   403   403    403      403       200      200     200
GET  /v1/audit/events                 401 401     401   403   403    403      403       403      403     200
GET  /healthz                         200 200     200   200   200    200      200       200      200     200
GET  /readyz                          200 200     200   200   200    200      200       200      200     200
GET  /.well-known/jwks.json           200 200     200   200   200    200      200       200      200     200
GET  /metrics                         200 200     200   200   200    200      200       200      200     200
GET  /openapi.json                    200 200     200   200   200    200      200       200      200     200
"""
BODIES: Final[dict[str, dict[str, Any]]] = {
    "POST /v1/grants": {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"},
    "POST /v1/grants/{id}/finish": {"outcome": "completed"},
    "POST /v1/grants/{id}/approve": {"digest": "0" * 64},
    "POST /v1/grants/{id}/deny": {"reason": "not now"},
    "POST /v1/grants/{id}/review": {"note": "Seen, and in order."},
    "POST /v1/incidents/preview": {"selection": "task=T-0"},
    "POST /v1/incidents/cut": {"digest": "0" * 64, "incident": "INC-7", "reason": "drill"},
    "POST /v1/incidents/report": {"incident": "INC-1"},
    "POST /v1/incidents/prove": {"about": "incident", "name": "INC-1"},
    "POST /v1/whois": {"name": "v-sh-orders-x"},
    "POST /v1/freezes": {"selection": "issuer=github", "message": "Stop.", "reason": "incident 7"},
    "POST /v1/freezes/{id}/thaw": {"reason": "over"},
    "POST /v1/needs": {"needs": ["select sales.orders"]},
}
OTHER: Final = "repo:acme/other-agent:ref:refs/heads/main"
RESPONDER: Final = Standing(roles=frozenset({Role.RESPONDER}))


def expectations() -> dict[tuple[str, str], int]:
    """Status by route and caller."""
    head, *rows = TABLE.strip().splitlines()
    callers = head.split()
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        method, path, *statuses = row.split()
        cells = zip(callers, map(int, statuses), strict=True)
        found |= {(f"{method} {path}", caller): status for caller, status in cells}
    return found


EXPECTED: Final = expectations()


class Scene:
    """A plane with a grant of the owner, a freeze of something else, and whoever calls."""

    def __init__(self) -> None:
        self.plane = FakePlane(
            compiled_entitlement(),
            compiled_entitlement(
                entitlement="payroll-read", eligibility=[{"issuer": "dev", "subject": "repo:acme/payroll:x"}]
            ),
        )
        self.grant = self.plane.ask(task="T-0", key="k-1").grant
        ann = self.plane.agent("ann")
        made = self.plane.freeze(ann, RESPONDER, "subject=nobody", message="Stop.", reason="drill")
        self.freeze = made.freeze.id
        self.cut = self._over()

    def _over(self) -> CutId:
        """A cut that has ended, of grants that are long gone."""
        now, by = self.plane.clock.now(), self.plane.issuer.name
        shown = Preview(digest="1" * 64, selection="task=T-9", at=now, count=1, issuer=by, subject="ann")
        cut = Cut(
            id=CutId("ct_" + "a" * 24),
            incident="INC-1",
            selection="task=T-9",
            digest=shown.digest,
            previewed_at=now,
            reason="drill",
            issuer=by,
            subject="ann",
            freeze=None,
            ordered_at=now,
            ended_at=now,
        )
        with self.plane.store.transaction() as tx:
            tx.preview(shown)
            tx.cut(cut)
        return cut.id

    def caller(self, name: str) -> dict[str, str]:
        """The headers that `name` sends."""
        subject = {"owner": AGENT, "frozen": AGENT, "bad": AGENT, "expired": AGENT, "other": OTHER}.get(name)
        claims = {} if subject else {"role": name}
        token = self.plane.issuer.mint(subject or f"{name}@acme.example", **cast("dict[str, Any]", claims)).reveal()
        if name == "expired":
            self.plane.clock.advance(timedelta(hours=2))
        if name == "frozen":
            self.plane.freeze(self.plane.agent("ann"), RESPONDER, "all", message="Stop.", reason="drill")
        sent = f"{token}x" if name == "bad" else token
        return {} if name == "anonymous" else {"Authorization": f"Bearer {sent}"}

    def path(self, path: str) -> str:
        """The path of this scene's own things."""
        thing = self.freeze if path.startswith("/v1/freezes") else self.grant.id
        thing = self.cut if path.startswith("/v1/incidents") else thing
        return path.replace("{id}", thing).replace("{name}", "orders-read").replace("{task}", "T-0")


@pytest.fixture
def scene() -> Scene:
    return Scene()


def routes() -> set[str]:
    """Method and path of everything that the application answers, described or not."""
    app = create_app(cast("ControlPlane", FakePlane()), worker=False)
    known = [(re.sub(r":[a-z]+}", "}", str(route.path)), route.methods) for route in iter_route_contexts(app.routes)]
    return {f"{method} {path}" for path, methods in known for method in (methods or {"ANY"}) - {"HEAD"}}


def test_a01_every_route_of_the_application_has_its_line_and_every_line_its_route() -> None:
    assert {route for route, _ in EXPECTED} == routes()


def test_the_description_knows_no_other_routes_than_the_table(http: Http, scene: Scene) -> None:
    described = http(scene.plane, "GET", "/openapi.json").json()["paths"]
    operations = {f"{method.upper()} {path}" for path, item in described.items() for method in item}
    assert operations | {"GET /openapi.json"} == {route for route, _ in EXPECTED}


@pytest.mark.parametrize(("route", "caller"), EXPECTED)
def test_a01_each_caller_gets_the_status_of_the_table(http: Http, scene: Scene, route: str, caller: str) -> None:
    method, path = route.split()
    headers = scene.caller(caller)
    body = {"json": BODIES[route]} if route in BODIES else {}
    answer = http(scene.plane, method, scene.path(path), headers=headers, **body)
    assert answer.status_code == EXPECTED[route, caller], answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        changed = {Kind.GRANT_ENDED, Kind.SELECTION_THAWED, Kind.AUDIT_READ}
        assert not changed & {event.kind for event in scene.plane.events()}
        assert scene.plane.store.grants() == [scene.plane.grant(scene.grant.id)]
    for handle in (scene.grant.accessor, scene.grant.wrap_accessor):
        assert str(handle) not in answer.text or route == "GET /v1/audit/events"


@pytest.mark.parametrize(
    ("route", "caller"), [cell for cell, status in EXPECTED.items() if status == 404 and "{" in cell[0]]
)
def test_a02_p12_what_is_somebody_elses_is_as_unknown_as_what_never_was(
    http: Http, scene: Scene, route: str, caller: str
) -> None:
    method, path = route.split()
    headers = scene.caller(caller)
    body = {"json": BODIES[route]} if route in BODIES else {}
    theirs_id, never = {
        "{id}": (scene.grant.id, "gr_" + "z" * 24),
        "{task}": ("T-0", "T-9"),
        "{name}": ("orders-read", "orders-none"),
    }[path[path.index("{") : path.index("}") + 1]]
    theirs = http(scene.plane, method, scene.path(path), headers=headers, **body)
    nothing = http(scene.plane, method, scene.path(path).replace(theirs_id, never), headers=headers, **body)
    assert theirs.status_code == nothing.status_code == 404
    assert theirs.text.replace(theirs_id, "…") == nothing.text.replace(never, "…")
    own = {"content-length", "x-request-id"}  # of each answer
    told = [{name: value for name, value in answer.headers.items() if name not in own} for answer in (theirs, nothing)]
    assert told[0] == told[1]
    assert scene.plane.grant(scene.grant.id).state is State.ACTIVE


@pytest.mark.parametrize("role", ["responder", "platform", "auditor"])
def test_a02_whoever_may_see_a_grant_may_not_end_it_by_that(http: Http, scene: Scene, role: str) -> None:
    headers = scene.caller(role)
    seen = http(scene.plane, "GET", f"/v1/grants/{scene.grant.id}", headers=headers).json()
    assert seen["grant"]["subject"] == AGENT
    assert http(scene.plane, "POST", f"/v1/grants/{scene.grant.id}/finish", headers=headers).status_code == 404
    assert scene.plane.grant(scene.grant.id).state is State.ACTIVE


@pytest.mark.parametrize("caller", ["other", "approver"])
def test_a02_no_filter_shows_a_grant_of_somebody_else(http: Http, scene: Scene, caller: str) -> None:
    headers = scene.caller(caller)
    for query in (
        "",
        "entitlement=orders-read",
        "task=T-0",
        "state=active",
        "state=active&state=revoked",
        f"before={scene.grant.id}",
        f"workload={scene.grant.workload}",
        f"subject={AGENT}",
        f"id={scene.grant.id}",
    ):
        answer = http(scene.plane, "GET", f"/v1/grants?{query}", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"grants": []}), query


def test_a02_where_somebody_elses_grant_stands_among_ones_own_is_not_told(http: Http) -> None:
    plane = FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "repo:acme/*:*:*/*/*"}}]))
    plane.ask(plane.agent(OTHER))
    plane.clock.advance(timedelta(seconds=1))
    theirs = plane.ask(plane.agent(AGENT)).grant.id
    who = {"Authorization": f"Bearer {plane.issuer.mint(OTHER).reveal()}"}
    assert len(http(plane, "GET", "/v1/grants", headers=who).json()["grants"]) == 1
    assert http(plane, "GET", f"/v1/grants?before={theirs}", headers=who).json() == {"grants": []}


def test_a02_another_workloads_idempotency_key_opens_nothing(http: Http) -> None:
    plane = FakePlane(compiled_entitlement(eligibility=[{"issuer": "dev", "subject": {"glob": "repo:acme/*:*:*/*/*"}}]))
    first = plane.ask(plane.agent(AGENT), key="k-1").grant
    who = {"Authorization": f"Bearer {plane.issuer.mint(OTHER).reveal()}", "Idempotency-Key": "k-1"}
    answer = http(plane, "POST", "/v1/grants", json=BODIES["POST /v1/grants"], headers=who)
    assert answer.status_code == 201
    assert answer.json()["grant"]["id"] != first.id
    assert first.id not in answer.text


@pytest.mark.parametrize("role", ["responder", "platform", "auditor"])
def test_people_with_a_role_find_grants_by_entitlement_task_and_state(http: Http, scene: Scene, role: str) -> None:
    scene.plane.clock.advance(timedelta(seconds=1))
    later = scene.plane.ask(task="T-2").grant
    scene.plane.end(later.id)
    headers = scene.caller(role)

    def found(query: str) -> list[str]:
        answer = http(scene.plane, "GET", f"/v1/grants?{query}", headers=headers)
        assert answer.status_code == 200, answer.text
        return [grant["id"] for grant in answer.json()["grants"]]

    assert found("") == [later.id, scene.grant.id]
    assert found("limit=1") == [later.id]
    assert found(f"before={later.id}") == [scene.grant.id]
    assert found("task=T-2") == [later.id]
    assert found("state=active") == [scene.grant.id]
    assert found("state=active&state=revoked") == [later.id, scene.grant.id]
    assert found("entitlement=orders-read&task=T-0") == [scene.grant.id]
    assert found("entitlement=payroll-read") == []
    assert http(scene.plane, "GET", "/v1/grants?state=gone", headers=headers).status_code == 422


FOREIGN: Final = (
    *("id", "state", "owner", "risk", "version", "subject", "issuer", "workload", "approved_by", "approvals", "why"),
    *("accessor", "created_at", "expires_at", "thawed_at", "thaws", "roles", "groups", "access", "settled"),
    *("policies", "role", "mount", "namespace", "template", "path", "revision", "delivery", "scopes", "token"),
)
"""Fields of ours, and of Vault, that nobody may bring along."""


@pytest.mark.parametrize("route", BODIES)
def test_a03_a14_no_body_sets_what_is_not_the_callers_to_say(http: Http, scene: Scene, route: str) -> None:
    method, path = route.split()
    before = list(scene.plane.events())
    for field in FOREIGN:
        for role in ("owner", "responder"):
            body = {**BODIES[route], field: "active"}
            answer = http(scene.plane, method, scene.path(path), headers=scene.caller(role), json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), field
            assert "there is no such field" in answer.json()["detail"]
    assert scene.plane.events() == before


def test_p12_a_workload_sees_what_it_may_ask_for_and_a_platform_team_everything(http: Http, scene: Scene) -> None:
    def seen(caller: str) -> list[str]:
        answer = http(scene.plane, "GET", "/v1/entitlements", headers=scene.caller(caller))
        return [each["entitlement"] for each in answer.json()["entitlements"]]

    assert seen("owner") == ["orders-read"]
    assert seen("platform") == ["orders-read", "payroll-read"]
    for caller in ("other", "approver", "responder", "auditor"):
        assert seen(caller) == []


def test_l16_an_auditor_reads_page_by_page_and_each_page_is_one_event(http: Http, scene: Scene) -> None:
    headers = scene.caller("auditor")
    written = len(scene.plane.events())
    first = http(scene.plane, "GET", "/v1/audit/events?limit=3", headers=headers).json()
    assert [event["seq"] for event in first["events"]] == [1, 2, 3]
    assert set(first["events"][0]) == {"seq", "at", "kind", "grant", "id", "body", "mac"}
    rest = http(scene.plane, "GET", f"/v1/audit/events?after={first['next']}", headers=headers).json()
    assert [event["seq"] for event in rest["events"]] == list(range(4, written + 3))
    assert [event["kind"] for event in rest["events"]][-2:] == ["audit.read", "audit.read"]
    assert http(scene.plane, "GET", "/v1/audit/events?after=999", headers=headers).json() == {"events": [], "next": 999}
    reads = scene.plane.events(Kind.AUDIT_READ)
    assert [event.body["after"] for event in reads] == [0, 3, 999]
    assert [event.body["subject"] for event in reads] == ["auditor@acme.example"] * 3
    for query in ("limit=0", "limit=1001", "after=-1", "after=9223372036854775808"):
        assert http(scene.plane, "GET", f"/v1/audit/events?{query}", headers=headers).status_code == 422


def test_c8_a_role_is_looked_up_anew_at_every_request(http: Http, scene: Scene) -> None:
    headers = scene.caller("auditor")
    assert http(scene.plane, "GET", "/v1/audit/events", headers=headers).status_code == 200
    scene.plane.access = ()
    assert http(scene.plane, "GET", "/v1/audit/events", headers=headers).status_code == 403


# Freezes over HTTP -------------------------------------------------------------------------------------------------


def test_a_freeze_is_answered_with_what_it_freezes_and_refuses_with_423_and_its_message(
    http: Http, scene: Scene
) -> None:
    asked = {"selection": "label.team = billing , risk=low", "message": "Stop.", "reason": "why", "expires_in": "2h"}
    answer = http(scene.plane, "POST", "/v1/freezes", json=asked, headers=scene.caller("responder"))
    body = answer.json()
    assert (answer.status_code, body["settled"]) == (201, True)
    made = body["freeze"]
    assert made["selection"] == "label.team=billing,risk=low"
    assert (made["subject"], made["issuer"], made["thawed_at"]) == ("responder@acme.example", "dev", None)
    assert made["expires_at"] == (scene.plane.clock.now() + timedelta(hours=2)).isoformat()
    asked = {"selection": "all", "message": "Everything stops.", "reason": "why"}
    every = http(scene.plane, "POST", "/v1/freezes", json=asked, headers=scene.caller("responder")).json()["freeze"]
    refused = http(scene.plane, "POST", "/v1/grants", json=BODIES["POST /v1/grants"], headers=scene.caller("owner"))
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["status"]) == (423, "frozen", 423)
    assert problem["reasons"] == [
        {"decision": "freeze", "code": "frozen", "detail": f"Everything stops. ({every['id']})"}
    ]
    explained = http(
        scene.plane, "POST", "/v1/grants?dry_run=1", json=BODIES["POST /v1/grants"], headers=scene.caller("owner")
    ).json()
    assert (explained["status"], explained["reasons"][0]["decision"], explained["reasons"][0]["says"]) == (
        423,
        "freeze",
        "no",
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"selection": ""},
        {"selection": "team=billing"},
        {"selection": "x" * 5000},
        {"message": ""},
        {"message": "two\nlines"},
        {"reason": None},
        {"expires_in": "0s"},
        {"expires_in": "soon"},
        {"expires_in": "999999h"},
    ],
    ids=lambda changed: f"{next(iter(changed))}={str(next(iter(changed.values())))[:12]!r}",
)
def test_what_makes_no_sense_freezes_nothing(http: Http, scene: Scene, changed: dict[str, Any]) -> None:
    before = len(scene.plane.store.freezes())
    body = {**BODIES["POST /v1/freezes"], **changed}
    answer = http(scene.plane, "POST", "/v1/freezes", json=body, headers=scene.caller("responder"))
    assert answer.status_code == 422, answer.text
    assert len(scene.plane.store.freezes()) == before


def test_i05_everything_is_thawed_with_202_and_then_200_by_somebody_else(http: Http, scene: Scene) -> None:
    plane = scene.plane
    made = plane.freeze(plane.agent("ann"), RESPONDER, "all", message="Stop.", reason="drill").freeze.id

    def thaw(subject: str, id: FreezeId = made) -> httpx.Response:
        token = plane.issuer.mint(subject, role="responder").reveal()
        return http(
            plane, "POST", f"/v1/freezes/{id}/thaw", json={"reason": "x"}, headers={"Authorization": f"Bearer {token}"}
        )

    first = thaw("ann")
    assert (first.status_code, first.json()["freeze"]["thawed_at"]) == (202, None)
    assert (thaw("ann").status_code, thaw("Ann").json()["code"]) == (403, "other-person-needed")
    second = thaw("bob")
    assert second.status_code == 200
    assert [by["subject"] for by in second.json()["freeze"]["thaws"]] == ["ann", "bob"]
    assert thaw("cleo").status_code == 200
    assert thaw("cleo", FreezeId("fz_" + "z" * 24)).status_code == 404


def test_freezes_are_listed_while_they_refuse_and_with_ended_all_of_them(http: Http, scene: Scene) -> None:
    plane = scene.plane
    plane.clock.advance(timedelta(seconds=1))
    ann = plane.agent("ann")
    short = plane.freeze(ann, RESPONDER, "task=T-9", message="a", reason="b", expires_in=timedelta(seconds=5)).freeze.id
    headers = scene.caller("responder")

    def listed(query: str = "") -> list[str]:
        answer = http(plane, "GET", f"/v1/freezes{query}", headers=headers)
        return [freeze["id"] for freeze in answer.json()["freezes"]]

    assert listed() == [short, scene.freeze]
    plane.clock.advance(timedelta(seconds=5))
    assert listed() == [scene.freeze]
    assert listed("?ended=1") == [short, scene.freeze]
    assert listed(f"?ended=1&before={short}") == [scene.freeze]
    assert GrantId(scene.grant.id) not in listed("?ended=1")
