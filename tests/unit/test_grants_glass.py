"""Break-glass: at once, loud, short, with a reason, and reviewed by somebody else before the next (C19)."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from controlplane.grants.decide import decide
from controlplane.model.access import AccessRule, Role, standing
from controlplane.model.decision import Decides, Deny
from controlplane.model.errors import (
    DeniedError,
    InvalidRequestError,
    NotAllowedError,
    NotEndedError,
    NotFoundError,
    NotSyncedError,
    OverBudgetError,
    OwnReviewError,
    ReviewedError,
)
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId, State, TaskId, Why
from controlplane.model.identity import IssuerName, SingleUse, VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.model.review import Review
from controlplane.model.situation import Situation
from controlplane.testing.clock import START
from controlplane.testing.entitlements import compiled_entitlement, entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.testing.policies import shipped_policy

ELIGIBLE = [{"issuer": "dev", "subject": {"glob": "repo:acme/*:ref:refs/heads/main"}}]
OTHER = "repo:acme/other:ref:refs/heads/main"
WHY = "the shop is down"
_TOKENS = itertools.count()


def glass(**changes: Any) -> FakePlane:
    return FakePlane(compiled_entitlement(break_glass=True, eligibility=ELIGIBLE, **changes))


@pytest.fixture
def plane() -> FakePlane:
    return glass()


def review(
    plane: FakePlane, id: GrantId, who: VerifiedClaims | None = None, note: str = "needed, and narrow"
) -> Review:
    closer = who or plane.agent("bob", role="approver")
    return plane.review(closer, standing(plane.access, closer), id, note)


def refused(plane: FakePlane, who: VerifiedClaims | None = None, **asked: Any) -> Sequence[tuple[Decides, str, str]]:
    wish: dict[str, Any] = {"reason": WHY, **asked}
    with pytest.raises(DeniedError) as caught:
        plane.ask(who, **wish)
    assert not isinstance(caught.value, OverBudgetError)
    return [(why.decision, why.code, why.detail) for why in caught.value.reasons]


def codes(plane: FakePlane, who: VerifiedClaims | None = None, **asked: Any) -> list[str]:
    return [code for _, code, _ in refused(plane, who, **asked)]


def test_c19_it_is_granted_at_once_and_says_that_it_must_be_reviewed(plane: FakePlane) -> None:
    delivered = plane.ask(reason=WHY)
    assert delivered.grant.state is State.ACTIVE
    assert delivered.wrapping_token is not None
    assert [(why.decision, why.code) for why in delivered.reasons][-1] == (Decides.APPROVAL, "break-glass")


def test_c19_it_is_loud_in_the_same_commit_as_the_grant_and_in_the_log(plane: FakePlane) -> None:
    with capture_logs() as logged:
        grant = plane.ask(reason=WHY).grant
    assert "commit grant.allowed glass.broken" in plane.journal.steps
    (event,) = plane.events(Kind.GLASS_BROKEN, grant.id)
    expected = {"entitlement": "orders-read", "task": "T-1", "reason": WHY, "issuer": "dev", "subject": AGENT}
    assert expected.items() <= dict(event.body).items()
    (line,) = [line for line in logged if line["event"] == "glass_broken"]
    assert (line["log_level"], line["grant"], line["subject"]) == ("warning", grant.id, AGENT)


def test_c19_a_review_that_cannot_be_saved_grants_nothing(plane: FakePlane) -> None:
    plane.journal.fail("before", "commit grant.allowed glass.broken", RuntimeError)
    with pytest.raises(RuntimeError):
        plane.ask(reason=WHY)
    assert plane.store.grants() == []
    assert plane.store.reviews() == []
    assert plane.alive() == []


@pytest.mark.parametrize("reason", ["", "   "])
def test_c19_whoever_breaks_the_glass_says_why(plane: FakePlane, reason: str) -> None:
    found = refused(plane, reason=reason)
    assert [(decides, code) for decides, code, _ in found] == [(Decides.SCOPE, "reason-needed")]
    assert plane.store.reviews() == []


def test_c19_what_breaks_no_glass_needs_no_reason_and_no_review() -> None:
    plane = FakePlane(compiled_entitlement())
    plane.ask()
    assert plane.store.reviews() == []
    assert plane.events(Kind.GLASS_BROKEN) == []


def test_c19_an_open_review_stops_the_next_and_names_the_grant_until_somebody_else_closes_it(plane: FakePlane) -> None:
    grant = plane.ask(reason=WHY).grant
    (found,) = refused(plane)
    assert found[:2] == (Decides.APPROVAL, "review-open")
    assert grant.id in found[2]
    plane.end(grant.id)
    assert codes(plane) == ["review-open"]  # that it has ended is not enough
    closed = review(plane, grant.id)
    assert plane.store.review(grant.id) == closed
    assert plane.ask(reason=WHY).grant.state is State.ACTIVE


def test_c19_one_review_blocks_every_break_glass_of_the_person_and_nobody_else_s() -> None:
    other = compiled_entitlement(entitlement="orders-fix", break_glass=True, eligibility=ELIGIBLE)
    plain = compiled_entitlement(entitlement="orders-look", eligibility=ELIGIBLE)
    plane = FakePlane(compiled_entitlement(break_glass=True, eligibility=ELIGIBLE), other, plain)
    plane.ask(reason=WHY)
    assert codes(plane, entitlement="orders-fix") == ["review-open"]
    assert plane.ask(entitlement="orders-look").grant.state is State.ACTIVE
    assert plane.ask(plane.agent(OTHER), reason=WHY).grant.state is State.ACTIVE


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"subject": AGENT, "person": "ann@acme.example"}, {"subject": OTHER, "person": "ANN@acme.example"}),
        ({"subject": AGENT, "person": OTHER}, {"subject": OTHER}),
    ],
)
def test_c19_a08_a_second_identity_of_the_same_person_is_blocked_too(
    plane: FakePlane, first: dict[str, str], second: dict[str, str]
) -> None:
    plane.ask(claims_of(**first), reason=WHY)
    assert codes(plane, claims_of(**second)) == ["review-open"]


def claims_of(subject: str, person: str | None = None) -> VerifiedClaims:
    until = START + timedelta(minutes=5)
    return VerifiedClaims(
        issuer=IssuerName("dev"),
        subject=subject,
        claims={"role": "approver"},
        issued_at=START,
        expires_at=until,
        person=person,
        single_use=SingleUse(issuer=IssuerName("dev"), id=f"{subject} {person} {next(_TOKENS)}", until=until),
    )


def test_c19_of_two_requests_at_once_one_gets_through(plane: FakePlane) -> None:
    agents = [plane.agent() for _ in range(8)]

    def ask(who: VerifiedClaims) -> list[str]:
        try:
            plane.ask(who, reason=WHY)
        except DeniedError as error:
            return [why.code for why in error.reasons]
        return []

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, agents))
    assert sorted(answers) == [[]] + [["review-open"]] * 7
    assert len(plane.store.grants()) == 1


def test_c19_the_same_key_again_is_the_same_grant_and_no_second_glass(plane: FakePlane) -> None:
    first = plane.ask(reason=WHY, key="k").grant
    assert plane.ask(reason=WHY, key="k").grant.id == first.id
    assert len(plane.events(Kind.GLASS_BROKEN)) == 1


def test_c19_a_grant_that_was_never_issued_is_reviewed_like_any_other(plane: FakePlane) -> None:
    plane.journal.fail("before", "logins.login", NotSyncedError)
    with pytest.raises(NotSyncedError):
        plane.ask(reason=WHY)
    assert codes(plane) == ["review-open"]
    plane.work()
    review(plane, plane.newest().id)
    plane.ask(reason=WHY)


@pytest.mark.parametrize("role", [Role.APPROVER, Role.RESPONDER])
def test_c19_a_review_is_closed_with_a_note_that_the_audit_log_keeps(plane: FakePlane, role: Role) -> None:
    grant = plane.ask(reason=WHY).grant
    plane.end(grant.id)
    closed = review(plane, grant.id, plane.agent("bob", role=role.value), note="only read orders 1 to 3").closing
    assert closed is not None
    assert (closed.subject, closed.at) == ("bob", plane.clock.now())
    (event,) = plane.events(Kind.GLASS_REVIEWED, grant.id)
    told = {"issuer": "dev", "subject": "bob", "person": None, "note": "only read orders 1 to 3"}
    assert dict(event.body) == told


@pytest.mark.parametrize("role", [None, "platform", "auditor"])
def test_c19_who_has_no_such_role_closes_nothing_and_does_not_learn_what_there_is(
    plane: FakePlane, role: str | None
) -> None:
    grant = plane.ask(reason=WHY).grant
    plane.end(grant.id)
    nobody = plane.agent("bob", role=role)
    for id in (grant.id, GrantId("gr_" + "z" * 24)):
        with pytest.raises(NotAllowedError):
            review(plane, id, nobody)
    assert len(plane.store.reviews()) == 1


@pytest.mark.parametrize(
    "closer",
    [
        claims_of(AGENT),
        claims_of(AGENT.upper()),
        claims_of("ann", "ANN@acme.example"),
        claims_of("ann@acme.example"),
    ],
    ids=["subject", "case", "person", "person as subject"],
)
def test_c19_a08_nobody_reviews_himself_under_any_of_his_names(plane: FakePlane, closer: VerifiedClaims) -> None:
    grant = plane.ask(claims_of(AGENT, "ann@acme.example"), reason=WHY).grant
    plane.end(grant.id)
    with pytest.raises(OwnReviewError):
        review(plane, grant.id, closer)
    assert plane.events(Kind.GLASS_REVIEWED) == []


def test_c19_the_same_subject_of_another_issuer_is_taken_for_the_same_person(plane: FakePlane) -> None:
    rule = AccessRule(issuer=IssuerName("other"), roles=frozenset({Role.APPROVER}), subject=AGENT)
    grant = plane.ask(reason=WHY).grant
    plane.end(grant.id)
    twin = VerifiedClaims(
        issuer=IssuerName("other"), subject=AGENT, claims={}, issued_at=START, expires_at=START + timedelta(minutes=5)
    )
    with pytest.raises(OwnReviewError):
        plane.review(twin, standing([rule], twin), grant.id, "fine")


def test_c19_a_review_covers_all_of_it_so_it_is_closed_only_when_the_end_is_proved(plane: FakePlane) -> None:
    grant = plane.ask(reason=WHY).grant
    with pytest.raises(NotEndedError):
        review(plane, grant.id)
    plane.finish(plane.agent(), grant.id, Why.COMPLETED)
    assert plane.grant(grant.id).state is State.REVOKING
    with pytest.raises(NotEndedError):
        review(plane, grant.id)
    plane.work()
    review(plane, grant.id)


def test_c19_a_closed_review_stays_as_it_was_closed(plane: FakePlane) -> None:
    grant = plane.ask(reason=WHY).grant
    plane.end(grant.id)
    first = review(plane, grant.id)
    with pytest.raises(ReviewedError):
        review(plane, grant.id, plane.agent("eve", role="responder"), note="another")
    assert plane.store.review(grant.id) == first


def test_c19_a_grant_without_a_broken_glass_has_no_review(plane: FakePlane) -> None:
    with pytest.raises(NotFoundError):
        review(plane, GrantId("gr_" + "z" * 24))


@pytest.mark.parametrize("note", [" ", ""])
def test_c19_a_note_says_something(plane: FakePlane, note: str) -> None:
    grant = plane.ask(reason=WHY).grant
    plane.end(grant.id)
    with pytest.raises(InvalidRequestError):
        review(plane, grant.id, note=note)


def test_c19_explaining_says_the_same_and_opens_no_review(plane: FakePlane) -> None:
    wish = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question", reason=WHY)
    assert plane.explain(plane.agent(), wish).decision.outcome == "allow"
    assert plane.store.reviews() == []
    plane.ask(reason=WHY)
    decision = plane.explain(plane.agent(), wish).decision
    assert [why.code for why in decision.reasons] == ["review-open"]


def test_c19_p12_a_stranger_learns_of_no_review(plane: FakePlane) -> None:
    plane.ask(claims_of(AGENT, "ann"), reason=WHY)
    assert codes(plane, claims_of("mallory", "ann")) == ["not-eligible"]


def test_c19_where_nobody_looked_for_reviews_the_answer_is_no() -> None:
    wanted = entitlement(break_glass=True)
    asked = GrantRequest(entitlement="orders-read", task=TaskId("T-1"), intent="answer-question", reason=WHY)
    decision = decide(wanted, claims_of(AGENT), asked, Situation(at=START), shipped_policy().now())
    assert isinstance(decision, Deny)
    assert [why.code for why in decision.reasons] == ["review-unknown"]


def test_c19_a_broken_glass_over_its_budget_is_not_answered_as_if_only_the_budget_said_no() -> None:
    plane = glass(context={"max_active": {"per_subject": 1}})
    plane.ask(reason=WHY)
    assert codes(plane) == ["over-max-active-per-subject", "review-open"]


def test_c19_an_entitlement_breaks_the_glass_or_asks_for_approval_never_both() -> None:
    with pytest.raises(ValidationError, match="break_glass skips approval"):
        entitlement(break_glass=True, approval={"quorum": 1, "from": ["group:x"]})
