"""Whatever hands out more access is stopped by a freeze, at any replica; a new route has to show it (P8; C18, A10)."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import httpx
import pytest
from fastapi.routing import iter_route_contexts

import controlplane
from controlplane.http.app import create_app
from controlplane.model.access import Role, Standing
from controlplane.model.approval import Narrowing
from controlplane.model.grant import Grant, GrantId, State, TaskId
from controlplane.model.identity import VerifiedClaims
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.wiring.plane import ControlPlane

Http = Callable[..., httpx.Response]

MINUTE: Final = timedelta(minutes=1)
RESPONDER: Final = Standing(roles=frozenset({Role.RESPONDER}))
WAITS: Final[dict[str, Any]] = {
    "risk": "high",
    "approval": {"quorum": 1, "from": ["group:oncall"], "within": "30m"},
}
HANDS_OUT: Final = "hands out more"
GIVES: Final = {
    # A route that changes something: who calls it, what of, and whether it may hand out more access than there was.
    "POST /v1/grants": ("agent", "", HANDS_OUT),
    "POST /v1/grants/{id}/approve": ("approver", "pending", HANDS_OUT),
    "POST /v1/grants/{id}/collect": ("agent", "approved", HANDS_OUT),
    "POST /v1/grants/{id}/renew": ("agent", "active", HANDS_OUT),
    "POST /v1/grants/{id}/heartbeat": ("agent", "active", "moves no end"),
    "POST /v1/grants/{id}/finish": ("agent", "active", "ends"),
    "POST /v1/grants/{id}/deny": ("approver", "pending", "ends"),
    "POST /v1/grants/{id}/review": ("approver", "glass", "closes a review"),
    "POST /v1/tasks/{task}/finish": ("agent", "task", "ends"),
    "POST /v1/needs": ("agent", "", "only looks"),
    "POST /v1/incidents/preview": ("responder", "", "only looks"),
    "POST /v1/incidents/cut": ("responder", "", "ends"),
    "POST /v1/incidents/report": ("responder", "", "only looks"),
    "POST /v1/incidents/prove": ("responder", "", "only looks"),
    "POST /v1/whois": ("responder", "", "only looks"),
    "POST /v1/freezes": ("responder", "", "stops"),
    "POST /v1/signals": ("issuer", "", "stops"),
    "POST /v1/freezes/{id}/thaw": ("responder", "freeze", "lets ask again, and grants nothing"),
}
HANDS: Final = {
    # Every line of ours that makes something usable, lets it live longer, or lets it be collected. A line elsewhere
    # belongs to a verb that needs a freeze check, and a row above.
    "Step.APPROVE,?": {"grants/approve.py"},
    "Step.ISSUE,?": {"grants/collect.py"},
    # What `doctor restore` adopts lives already, under Vault's own clock, and gets no later end.
    "Step.DELIVER,?": {"grants/issue.py", "grants/restore.py"},
    r"logins\.login\(": {"grants/issue.py"},
    r"logins\.read\(": {"grants/issue.py"},
    r"logins\.wrap\(": {"grants/issue.py"},
    r"leases\.extend\(": {"grants/renew.py"},
    # Undoing a renewal gives back the end of before.
    r"leases\.renew\(": {"grants/issue.py", "grants/undo.py"},
}
AT_VAULT: Final = {"logins.login", "logins.read", "logins.wrap", "leases.extend", "leases.renew"}
RANK: Final = {State.PENDING: 1, State.APPROVED: 2, State.ISSUING: 3, State.ACTIVE: 3}
"""How near to access a grant is; what ends is no nearer than nothing."""


@dataclass(frozen=True, slots=True)
class Power:
    """All access that there is: how near each grant is to it, until when, and what lives in Vault and at the target."""

    grants: Mapping[GrantId, tuple[int, datetime]]
    alive: frozenset[str]

    def is_no_more_than(self, other: "Power") -> bool:
        return self.alive <= other.alive and all(
            id in other.grants and rank <= other.grants[id][0] and end <= other.grants[id][1]
            for id, (rank, end) in self.grants.items()
            if rank
        )


class Scene:
    """Grants in every state that something can follow from, and a second replica over the same store and Vault."""

    def __init__(self) -> None:
        entitlements = (
            compiled_entitlement(),
            compiled_entitlement(entitlement="orders-refund", **WAITS),
            compiled_entitlement(entitlement="orders-glass", break_glass=True),
        )
        self.first = FakePlane(*entitlements)
        self.plane = FakePlane(
            *entitlements, store=self.first.store, vault=self.first.vault, clock=self.first.clock, ids=self.first.ids
        )
        self.active = self._ask("orders-read", "T-active")
        self.pending = self._ask("orders-refund", "T-pending")
        self.approved = self._ask("orders-refund", "T-approved")
        ann = self.first.agent("ann", role="approver", groups=["oncall"])
        self.first.approve(ann, self.approved.id, digest=self._digest(self.approved), narrow=Narrowing())
        self.glass = self.first.end(self._ask("orders-glass", "T-glass").id)
        bob = self.first.agent("bob")
        self.freeze = self.first.freeze(bob, RESPONDER, "subject=nobody", message="Stop.", reason="drill").freeze
        self.preview = self.first.preview(bob, RESPONDER, "task=T-active").digest
        self._cut(bob, "T-cut")
        self.first.clock.advance(MINUTE)

    def _cut(self, who: VerifiedClaims, task: str) -> None:
        """An incident that is over."""
        self._ask("orders-read", task)
        digest = self.first.preview(who, RESPONDER, f"task={task}").digest or ""
        self.first.cut(who, RESPONDER, digest, incident="INC-1", reason="drill", freeze=False)
        self.first.wait(MINUTE)

    def freeze_everything(self) -> None:
        """At the other replica."""
        self.first.freeze(self.first.agent("bob"), RESPONDER, "all", message="Stop.", reason="drill")

    def call(self, http: Http, route: str) -> httpx.Response:
        caller, thing, _ = GIVES[route]
        if caller == "issuer":
            pushed, said = self.plane.issuer.signal(AGENT), {"Content-Type": "application/secevent+jwt"}
            return http(self.plane, "POST", "/v1/signals", headers=said, content=pushed.reveal())
        if caller == "agent":
            token = self.plane.issuer.mint(AGENT, jti=f"by {route}")
        else:
            token = self.plane.issuer.mint(f"{caller}-1", role=caller, groups=["oncall"])
        method, path = route.split()
        id = "" if thing in {"", "task"} else getattr(self, thing).id
        path = path.replace("{id}", id).replace("{task}", self.active.task)
        body = {"json": self._body(route)}
        return http(self.plane, method, path, headers={"Authorization": f"Bearer {token.reveal()}"}, **body)

    def power(self) -> Power:
        grants = {grant.id: (RANK.get(grant.state, 0), grant.expires_at) for grant in self.plane.store.grants()}
        return Power(grants, frozenset(self.first.alive()))

    def _ask(self, entitlement: str, task: str) -> Grant:
        asked = self.first.ask(entitlement=entitlement, task=TaskId(task), reason="needed")
        if asked.wrapping_token is not None:
            self.first.vault.unwrap(asked.wrapping_token)
        return asked.grant

    def _digest(self, grant: Grant) -> str:
        asked = self.first.watch.asked(grant)
        assert asked is not None
        return asked.digest

    def _body(self, route: str) -> dict[str, Any]:
        bodies: dict[str, dict[str, Any]] = {
            "POST /v1/grants": {"entitlement": "orders-read", "task": "T-new", "intent": "answer-question"},
            "POST /v1/grants/{id}/approve": {"digest": self._digest(self.pending)},
            "POST /v1/grants/{id}/renew": {"ttl": "10m"},
            "POST /v1/grants/{id}/finish": {"outcome": "completed"},
            "POST /v1/grants/{id}/deny": {"reason": "not now"},
            "POST /v1/grants/{id}/review": {"note": "Seen, and in order."},
            "POST /v1/needs": {"needs": ["select sales.orders"]},
            "POST /v1/incidents/preview": {"selection": "task=T-active"},
            "POST /v1/incidents/cut": {"digest": self.preview, "incident": "INC-7", "reason": "the key leaked"},
            "POST /v1/incidents/report": {"incident": "INC-1"},
            "POST /v1/incidents/prove": {"about": "incident", "name": "INC-1"},
            "POST /v1/whois": {"name": "v-sh-orders-x"},
            "POST /v1/freezes": {"selection": "issuer=dev", "message": "Stop.", "reason": "incident 7"},
            "POST /v1/freezes/{id}/thaw": {"reason": "over"},
        }
        return bodies.get(route, {})


@pytest.fixture
def scene() -> Scene:
    return Scene()


def changing() -> set[str]:
    """Every route that may change something."""
    app = create_app(cast("ControlPlane", FakePlane()), worker=False)
    known = [(re.sub(r":[a-z]+}", "}", str(route.path)), route.methods) for route in iter_route_contexts(app.routes)]
    return {f"{method} {path}" for path, methods in known for method in (methods or {"ANY"}) - {"HEAD", "GET"}}


def test_every_route_that_changes_something_has_its_row() -> None:
    assert set(GIVES) == changing()


@pytest.mark.parametrize("route", GIVES)
def test_a_route_hands_out_more_access_only_where_its_row_says_so(http: Http, scene: Scene, route: str) -> None:
    before = scene.power()
    answer = scene.call(http, route)
    assert answer.is_success, answer.text
    assert scene.power().is_no_more_than(before) is (GIVES[route][2] != HANDS_OUT)


@pytest.mark.parametrize("route", GIVES)
def test_p8_while_all_is_frozen_no_route_of_any_replica_hands_out_more_and_what_ends_goes_on(
    http: Http, scene: Scene, route: str
) -> None:
    scene.freeze_everything()
    before = scene.power()
    scene.plane.journal.steps.clear()
    answer = scene.call(http, route)
    assert scene.power().is_no_more_than(before)
    assert not AT_VAULT & set(scene.plane.journal.steps)
    if GIVES[route][2] == HANDS_OUT:
        assert (answer.status_code, answer.json()["code"]) == (423, "frozen")
    else:
        assert answer.is_success, answer.text


@pytest.mark.parametrize("pattern", HANDS)
def test_p8_nothing_else_of_ours_makes_access_or_lets_it_live_longer(pattern: str) -> None:
    source = Path(controlplane.__file__).parent
    within = [file for part in ("grants", "incident", "worker", "http", "cli") for file in (source / part).glob("*.py")]
    found = {str(file.relative_to(source)) for file in within if re.search(pattern, file.read_text(encoding="utf-8"))}
    assert found == HANDS[pattern]
