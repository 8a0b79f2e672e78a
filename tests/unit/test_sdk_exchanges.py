"""The agent's conversation with a whole control plane in memory: no socket, no sleep, every step counted (C5, C9)."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import pytest

from controlplane.model.errors import ControlPlaneError
from controlplane.model.grant import GrantId, State, Why
from controlplane.sdk import calls, exchanges
from controlplane.sdk.access import Access
from controlplane.sdk.calls import Call, Json, Pause
from controlplane.sdk.driving import drive
from controlplane.sdk.exchanges import Opened, Wish
from controlplane.sdk.refusals import (
    DeniedError,
    EndedError,
    FrozenError,
    OverBudgetError,
    OverError,
    UnreachableError,
    WaitingError,
)
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane

Http = Callable[..., httpx.Response]
ASKED = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}
OTHER = "repo:mallory/agent:ref:refs/heads/main"


@dataclass
class Talk:
    """Does each step at a FakePlane and its Vault; `before` and `after` say what happens on the way to a path."""

    http: Http
    plane: FakePlane
    subject: str = AGENT
    steps: list[str] = field(default_factory=list[str])
    pauses: list[float] = field(default_factory=list[float])
    before: dict[str, Callable[[], object]] = field(default_factory=dict[str, Callable[[], object]])
    after: dict[str, Callable[[], object]] = field(default_factory=dict[str, Callable[[], object]])

    def __call__(self, step: Call | Pause) -> Json:
        if isinstance(step, Pause):
            self.pauses.append(step.seconds)
            self.before.pop("pause", lambda: None)()
            return {}
        name = step.path.partition("?")[0].rsplit("/", maxsplit=1)[-1]
        self.steps.append(name)
        self.before.pop(name, lambda: None)()
        answer = self.unwrapped(step) if step.wrapping else self.asked(step)
        self.after.pop(name, lambda: None)()
        return answer

    def asked(self, step: Call) -> Json:
        headers = calls.headers_of(step, self.plane.issuer.mint(self.subject, jti=f"token-{len(self.steps)}"), None)
        body = {} if step.body is None else {"json": step.body}
        answer = self.http(
            self.plane, step.method, re.sub("wait=[0-9]+s", "wait=1s", step.path), headers=headers, **body
        )
        return calls.heard(step, "http://door", answer.status_code, answer.content)

    def unwrapped(self, step: Call) -> Json:
        assert step.wrapping is not None
        opened = self.plane.vault.unwrap(step.wrapping)
        return {
            "data": {scope: {name: one.reveal() for name, one in fields.items()} for scope, fields in opened.items()}
        }

    def enter(self, *, wait: bool | timedelta = False, **more: str) -> Opened:
        return drive(exchanges.enter(Wish(asked={**ASKED, **more}, wait=wait), lambda: 0.0), self)

    def leave(self, id: str, outcome: str = "completed") -> Json:
        return drive(exchanges.leave(id, outcome, None), self)


@pytest.fixture
def talk(http: Http) -> Talk:
    return Talk(http=http, plane=FakePlane(compiled_entitlement()))


def waiting(http: Http) -> Talk:
    approval = {"quorum": 1, "from": ["group:oncall"]}
    return Talk(http=http, plane=FakePlane(compiled_entitlement(risk="high", approval=approval)))


def approve(talk: Talk) -> None:
    grant = talk.plane.newest()
    ann = {"Authorization": f"Bearer {talk.plane.issuer.mint('ann', role='approver', groups=['oncall']).reveal()}"}
    digest = talk.http(talk.plane, "GET", f"/v1/grants/{grant.id}", headers=ann).json()["asked"]["digest"]
    said = talk.http(talk.plane, "POST", f"/v1/grants/{grant.id}/approve", json={"digest": digest}, headers=ann)
    assert said.status_code == 200, said.text


def fail(error: BaseException) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it


def test_c26_entering_is_one_call_to_the_api_and_one_to_vault_and_leaving_is_one_more(talk: Talk) -> None:
    opened = talk.enter()
    assert talk.steps == ["grants", "unwrap"]
    assert set(opened.credentials["orders"]) == {"username", "password"}
    assert talk.leave(opened.id)["why"] == Why.COMPLETED
    assert talk.steps == ["grants", "unwrap", "finish"]


def test_a_denial_and_a_freeze_and_a_budget_are_kinds_of_their_own_with_their_reasons(http: Http) -> None:
    budget = {"max_active": {"per_subject": 1}}
    talk = Talk(http=http, plane=FakePlane(compiled_entitlement(context=budget)))
    with pytest.raises(DeniedError) as denied:
        Talk(http=http, plane=talk.plane, subject=OTHER).enter()
    assert [why.code for why in denied.value.reasons] == ["not-eligible"]
    talk.enter()
    with pytest.raises(OverBudgetError):
        talk.enter()
    responder = {"Authorization": f"Bearer {talk.plane.issuer.mint('rob', role='responder').reveal()}"}
    body = {"selection": "entitlement=orders-read", "reason": "drill", "message": "stop", "expires_in": "1h"}
    assert http(talk.plane, "POST", "/v1/freezes", json=body, headers=responder).status_code == 201
    with pytest.raises(FrozenError) as frozen:
        talk.enter()
    assert "freeze" in [why.decision for why in frozen.value.reasons]
    assert talk.steps == ["grants", "unwrap", "grants", "grants"]  # and nobody tried again


def test_c18_it_waits_for_people_only_if_it_is_asked_to_and_can_come_back_later(http: Http) -> None:
    talk = waiting(http)
    with pytest.raises(WaitingError) as waits:
        talk.enter(reason="order 7 is wrong")
    assert talk.steps == ["grants"]
    assert talk.plane.newest().state is State.PENDING
    approve(talk)
    opened = drive(exchanges.resume(waits.value.id, False, lambda: 0.0), talk)
    assert opened.id == waits.value.id
    assert talk.steps == ["grants", waits.value.id, "collect", "unwrap"]


def test_c18_waiting_looks_until_people_have_agreed_and_then_collects(http: Http) -> None:
    talk = waiting(http)
    talk.before["pause"] = lambda: approve(talk)
    opened = talk.enter(wait=True, reason="order 7 is wrong")
    assert talk.plane.grant(GrantId(opened.id)).state is State.ACTIVE
    assert talk.steps[-2:] == ["collect", "unwrap"]


def test_who_is_tired_of_waiting_leaves_the_grant_to_whoever_comes_back(http: Http) -> None:
    talk = waiting(http)
    instants = itertools.count(0.0, 29.0)
    with pytest.raises(WaitingError):
        drive(
            exchanges.enter(
                Wish(asked={**ASKED, "reason": "order 7"}, wait=timedelta(seconds=60)), lambda: next(instants)
            ),
            talk,
        )
    assert talk.plane.newest().state is State.PENDING


def test_c18_a_no_of_a_person_is_a_denial(http: Http) -> None:
    talk = waiting(http)

    def deny() -> None:
        ann = {"Authorization": f"Bearer {talk.plane.issuer.mint('ann', role='approver', groups=['oncall']).reveal()}"}
        said = talk.http(
            talk.plane, "POST", f"/v1/grants/{talk.plane.newest().id}/deny", json={"reason": "no"}, headers=ann
        )
        assert said.status_code == 200, said.text

    talk.before["pause"] = deny
    with pytest.raises(DeniedError):
        talk.enter(wait=True, reason="order 7 is wrong")


@pytest.mark.parametrize("lost", ["before", "after"])
def test_c14_an_answer_that_is_lost_is_asked_for_again_with_the_same_key_and_leaves_nothing_behind(
    talk: Talk, lost: str
) -> None:
    getattr(talk, lost)["grants"] = fail(UnreachableError("broke off"))
    opened = talk.enter()
    assert talk.plane.grant(GrantId(opened.id)).state is State.ACTIVE
    others = [grant for grant in talk.plane.store.grants(limit=9) if grant.id != opened.id]
    assert [grant.why for grant in others] == ([Why.FAILED] if lost == "after" else [])


@pytest.mark.parametrize("when", ["before", "after"])
def test_c11_an_interrupted_question_leaves_nothing_whether_or_not_it_was_heard(talk: Talk, when: str) -> None:
    getattr(talk, when)["grants"] = fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        talk.enter()
    assert talk.steps == ["grants", "grants", "finish"]
    assert [grant.why for grant in talk.plane.store.grants(limit=9)] == [Why.FAILED]


def test_c11_who_is_interrupted_as_soon_as_they_come_back_takes_back_what_waits(http: Http) -> None:
    talk = waiting(http)
    with pytest.raises(WaitingError) as waits:
        talk.enter(reason="order 7 is wrong")
    talk.before[waits.value.id] = fail(SystemExit(143))
    with pytest.raises(SystemExit):
        drive(exchanges.resume(waits.value.id, True, lambda: 0.0), talk)
    assert talk.plane.newest().state is not State.PENDING


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UnreachableError("no Vault"), SystemExit(143)])
def test_c11_whatever_breaks_off_the_entering_ends_what_was_made(talk: Talk, error: BaseException) -> None:
    talk.after["unwrap"] = fail(error)
    with pytest.raises(type(error)):
        talk.enter()
    assert talk.steps == ["grants", "unwrap", "finish"]
    assert talk.plane.newest().why is Why.FAILED


def test_an_end_that_nobody_hears_is_told_again_and_one_that_was_is_fine(talk: Talk) -> None:
    opened = talk.enter()
    talk.before["finish"] = fail(UnreachableError("away"))
    assert talk.leave(opened.id, "failed")["why"] == Why.FAILED
    assert talk.pauses == [0.2]
    assert talk.leave(opened.id)["why"] == Why.FAILED  # it was over before: that stays
    talk.plane.work()


def test_c8_beats_come_three_times_as_often_as_they_must_until_the_grant_is_over(http: Http) -> None:
    talk = Talk(http=http, plane=FakePlane(compiled_entitlement(heartbeat="60s")))
    opened = talk.enter()
    assert opened.beat == timedelta(seconds=60)

    def later() -> None:
        talk.plane.clock.advance(timedelta(seconds=20))
        if len(talk.pauses) == 3:
            talk.before["heartbeat"] = fail(UnreachableError("away"))
        if len(talk.pauses) < 9:
            talk.before["pause"] = later
        else:
            talk.plane.end(GrantId(opened.id), Why.FAILED)

    talk.before["pause"] = later
    over = drive(exchanges.keep(opened, renew=False), talk)
    assert isinstance(over, EndedError)
    assert talk.pauses == [20.0] * 9
    assert talk.steps.count("heartbeat") == 9


def test_c8_keeping_renews_up_to_the_maximum_and_then_there_is_nothing_left_to_keep(http: Http) -> None:
    talk = Talk(http=http, plane=FakePlane(compiled_entitlement()))
    began = talk.plane.clock.now()
    opened = talk.enter()

    def later() -> None:
        talk.plane.clock.advance(timedelta(seconds=talk.pauses[-1]))
        talk.before["pause"] = later

    talk.before["pause"] = later
    assert drive(exchanges.keep(opened, renew=True), talk) is None
    assert talk.steps.count("renew") == 5  # each 2.5 minutes by 5 more, and the last one is refused
    assert talk.plane.grant(GrantId(opened.id)).expires_at == began + timedelta(minutes=15)


def test_p09_a_credential_refuses_after_its_end_and_never_shows_itself(talk: Talk) -> None:
    opened = talk.enter()
    access = Access(opened)
    orders = access["orders"]
    password = orders.password
    assert access.only is orders
    assert orders.username == orders["username"] == opened.credentials["orders"]["username"].reveal()
    for shown in (repr(access), repr(orders), str(orders), f"{access}"):
        assert password not in shown
    with pytest.raises(TypeError):
        orders.__reduce__()
    with pytest.raises(AttributeError, match="it has"):
        _ = orders.token
    with pytest.raises(KeyError, match="it has orders"):
        _ = access["refunds"]
    access.end(ControlPlaneError("left"))
    for use in (lambda: orders.password, lambda: access["orders"], lambda: access.redacted("x")):
        with pytest.raises(OverError):
            use()
    held = orders._fields  # pyright: ignore[reportPrivateUsage] # what the memory holds is the promise
    assert not any(any(value) for value in held.values())


def test_p10_a_result_is_handed_on_without_any_issued_secret(talk: Talk) -> None:
    access = Access(talk.enter())
    password = access.only.password
    said = {"rows": [f"login with {password}!", 7, (password.encode(), None)], password: "key"}
    cleaned = access.redacted(said)
    assert password not in repr(cleaned)
    assert cleaned["rows"][:2] == ["login with [redacted]!", 7]
