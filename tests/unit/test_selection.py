"""Selections: Kubernetes' grammar, one meaning for each text, and never everything by accident (A27)."""

import time
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

import pytest
from click import Context, Option
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.cutting import SelectionType, preview
from controlplane.model.approval import Approver, GivenApproval
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import InvalidSelectionError
from controlplane.model.grant import State, TaskId
from controlplane.model.identity import IssuerName, claim_at
from controlplane.model.selection import MAX_LENGTH, MAX_VALUES, Asking, Selectable, Selector
from controlplane.selectors import asked_for, granted, noted, selection, selectors
from controlplane.testing.clock import START
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.store import sample_grant, sample_lease

ASKING = Asking(
    issuer=IssuerName("github"),
    subject="repo:acme/refund-agent:ref:refs/heads/main",
    entitlement="orders-refund",
    task="T-1042",
    above=("T-1000",),
    intent="issue-refund",
    address=ip_address("10.1.2.3"),
    document=compiled_entitlement(
        entitlement="orders-refund",
        owner="team-billing@acme.example",
        labels={"team": "billing", "env": "prod"},
        risk="high",
        sensitivity="pii",
    ).entitlement,
    mounts=("database",),
    targets=("orders",),
    claims={
        "environment": "prod",
        "kubernetes.io": {"namespace": "agents"},
        "groups": ["billing", "oncall"],
        "verified": True,
        "run": 7,
        "nothing": None,
        "odd": {"x": 1.5},
        "a/b": "whole",
        "a": {"b": "nested", "c/d": "unreachable"},
        "bad\x00name": "x",
        "bad": "\x00",
    },
)
ONE = asked_for(ASKING)
AGENT_GRANT = sample_grant(state=State.ACTIVE, issued_at=START + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("all", True),
        (" all ", True),
        ("subject=repo:acme/refund-agent:ref:refs/heads/main", True),
        ("subject==repo:acme/refund-agent:ref:refs/heads/main", True),
        ("subject=repo:acme/refund-agent", False),
        ("subject=Repo:acme/refund-agent:ref:refs/heads/main", False),
        ("issuer=github", True),
        ("issuer!=github", False),
        ("issuer in (gitlab, github)", True),
        ("issuer notin (gitlab, github)", False),
        ("issuer notin(gitlab)", True),
        ("entitlement = orders-refund , issuer = github", True),
        ("entitlement=orders-refund,issuer=gitlab", False),
        ("owner=team-billing@acme.example", True),
        ("label.team=billing", True),
        ("label.team=sales", False),
        ("label.team", True),
        ("!label.team", False),
        ("label.cost", False),
        ("!label.cost", True),
        ("label.cost!=high", True),  # as Kubernetes has it: what is not there is not that
        ("label.cost=high", False),
        ("task=T-1042", True),
        ("task=T-1000", True),  # whatever is a part of it, too
        ("task in (T-7)", False),
        ("address=10.1.2.3", True),
        ("sensitivity=pii,engine=database,mount=database,target=orders", True),
        ("target=billing", False),
        ("claim.a/b=whole", True),
        ("claim.a/b=nested", False),
        ("!claim.a/c/d", True),
        ("claim.bad", True),
        ("state=active", False),  # of a request, not yet
        ("age<1h", False),
        ("intent=issue-refund,risk=high", True),
        ("risk in (low, medium)", False),
        ("claim.environment=prod", True),
        ("claim.kubernetes.io/namespace=agents", True),
        ("claim.groups=oncall", True),
        ("claim.groups!=oncall", False),
        ("claim.groups=onc", False),
        ("claim.verified=true", True),
        ("claim.run=7", True),
        ("!claim.nothing,!claim.odd,!claim.missing", True),
        ('subject="repo:acme/refund-agent:ref:refs/heads/main"', True),
        ('task="a, b (c) = \\"d\\" \\\\ *"', False),
    ],
)
def test_a_selection_selects_what_it_says(text: str, selected: bool) -> None:
    assert selection(text).selects(ONE) is selected
    assert str(selection(str(selection(text)))) == str(selection(text))


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("", 1, "it is empty; write all for everything"),
        ("   ", 4, "it is empty"),
        ("all,issuer=github", 1, "all stands alone"),
        ("issuer=github,all", 15, "all stands alone"),
        ("!all", 2, "there is no key all"),
        ("all=1", 1, "all stands alone"),
        ("*", 1, "here should be a key"),
        ("isuer=github", 1, "there is no key isuer: did you mean issuer? there are address, age, approver, claim"),
        ("issuer=", 8, "here should be a value"),
        ('issuer=""', 8, "here should be a value"),
        ("issuer=github,", 15, "here should be a key"),
        (",issuer=github", 1, "here should be a key"),
        ("issuer=git hub", 12, "a comma between two conditions"),
        ("subject=repo:acme/*", 19, "there are no patterns"),
        ("subject=a=b", 10, "quotation marks"),
        ('subject="open', 9, "never closed"),
        ('subject="open\\', 9, "never closed"),
        ("issuer in github", 11, "( and values"),
        ("issuer in (github", 18, "a comma or )"),
        ("issuer in ()", 12, "here should be a value"),
        ("issuer in (a,)", 14, "here should be a value"),
        ("issuer ~ github", 8, "a comma between two conditions"),
        ("zzz=1", 1, "there is no key zzz; there are address"),
        ("age=1h", 5, "age is a time: write age<2h, or the other way round"),
        ("age<soon", 5, "a length of time, such as 90s"),
        ("issued>=2026-01-01T00:00:00", 9, "an instant with its zone"),
        ("issued<0001-01-01T00:00:00+09:00", 8, "an instant with its zone"),
        ("task<T-1", 6, "task is no time, so it has no range"),
        ("label=billing", 1, "label is followed by a dot and a name: label.team=billing"),
        ("label.=billing", 1, "label is followed by a dot and a name"),
        ("task.id=T-1", 1, "task has no name after it"),
        ("risk=severe", 6, "risk is one of high, low, medium"),
        ("subject=a,subject=b", 11, "write subject in (…, …) for either"),
        ("subject=a\u202eb", 9, "printable"),
        ('subject="a\nb"', 9, "printable"),
    ],
)
def test_a27_what_cannot_be_read_is_refused_and_says_where(text: str, at: int, what: str) -> None:
    with pytest.raises(InvalidSelectionError) as refused:
        selection(text)
    assert refused.value.detail.startswith(f"selection, character {at}: ")
    assert what in refused.value.detail


def test_a27_a_long_one_is_refused_and_a_hostile_one_takes_no_time() -> None:
    with pytest.raises(InvalidSelectionError, match="longer than"):
        selection("issuer=" + "a" * MAX_LENGTH)
    with pytest.raises(InvalidSelectionError, match="more than"):
        selection(f"issuer in ({','.join(map(str, range(MAX_VALUES + 1)))})")
    begun = time.process_time()
    for text in ("!" * MAX_LENGTH, "(" * MAX_LENGTH, '"\\' * (MAX_LENGTH // 2), "a" * MAX_LENGTH, "a," * 2000):
        with pytest.raises(InvalidSelectionError):
            selection(text)
    assert time.process_time() - begun < 5  # seconds; backtracking takes years


KEYS = st.sampled_from(
    [
        selector.example.partition("=")[0]
        for selector in selectors().values()
        if not selector.choices and not selector.ordered
    ]
)
VALUES = st.text(min_size=1, max_size=12).filter(str.isprintable)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@given(key=KEYS, values=st.lists(VALUES, min_size=1, max_size=4), no=st.booleans())
def test_any_value_in_quotation_marks_is_itself_and_is_written_so_that_it_reads_back(
    key: str, values: list[str], no: bool
) -> None:
    parsed = selection(f"{key} {'notin' if no else 'in'} ({', '.join(map(_quoted, values))})")
    (term,) = parsed.terms
    assert term.values == frozenset(values)
    assert selection(str(parsed)) == parsed


@given(st.text(max_size=60))
def test_a27_any_text_is_read_or_refused_and_nothing_but_the_word_selects_everything(text: str) -> None:
    try:
        parsed = selection(text)
    except InvalidSelectionError:
        return
    assert parsed.everything == (text.strip(" \t") == "all")
    assert selection(str(parsed)) == parsed


@pytest.mark.parametrize("selector", selectors().values(), ids=lambda selector: selector.word)
def test_every_selector_has_an_example_that_reads_and_finds_its_value_or_none(selector: Selector) -> None:
    parsed = selection(selector.example)
    assert parsed.terms[0].selector is selector
    assert not parsed.selects(Selectable(known={}))
    assert str(selection(str(parsed))) == str(parsed)
    assert selector.about


def test_the_shell_completes_every_key_that_there_is_and_no_other() -> None:
    def completed(text: str) -> list[str]:
        return [str(one.value) for one in SelectionType().shell_complete(Context(preview), Option(["-l"]), text)]

    assert set(completed("")) == {f"{one.word}{'.' if one.named else ''}" for one in selectors().values()}
    assert completed("task=T-1,sub") == ["task=T-1,subject"]
    assert completed("nothing") == []


def test_p12_only_selectors_that_look_at_the_caller_alone_say_so() -> None:
    document = compiled_entitlement(entitlement="other", owner="b", labels={"team": "b"}, risk="low").entitlement
    other = asked_for(
        replace(ASKING, entitlement="b", task="b", above=(), intent="b", document=document, mounts=(), targets=("b",))
    )
    stranger = asked_for(replace(ASKING, document=None, entitlement="b", task="b", above=(), intent="b"))
    for selector in selectors().values():
        keys = [key for key in {**ONE.known, **other.known} if key.partition(".")[0] == selector.word]
        same = bool(keys) and all(ONE.known.get(key) == other.known.get(key) == stranger.known.get(key) for key in keys)
        assert selector.of_caller == same or selector.word == "engine", selector.word  # of that both have the same


def test_a_grant_is_selected_by_what_it_was_asked_with_and_by_what_became_of_it() -> None:
    seen = granted(
        AGENT_GRANT,
        noted(ASKING),
        line=[TaskId("T-0")],
        leases=[sample_lease()],
        approvals=[GivenApproval(by=Approver(issuer=IssuerName("people"), subject="ann"), digest="", at=START)],
        at=START + timedelta(hours=1),
    )
    for text, selected in (
        ("state=active,revision=0a1b2c3d,principal=v-sh-1,approver=ann,task=T-0,owner=team-billing@acme.example", True),
        ("state in (revoked, revoking)", False),
        ("age>30m,age<=60m", True),
        ("age>1h", False),
        ("age,issued,!principal", False),
        ("issued>=2026-01-01T00:00:00Z,issued<2126-01-01T00:00:00Z", True),
        ("issued<2026-01-01T00:00:00Z", False),
    ):
        assert selection(text).selects(seen) is selected, text


def test_what_narrows_says_what_is_meant_and_not_only_what_is_not() -> None:
    assert [
        selection(text).narrows for text in ("task=T-1", "age<1h", "label.team in (a)", "state!=active,age<1h")
    ] == [True] * 4
    assert [selection(text).narrows for text in ("all", "task!=T-1", "subject", "!label.x", "risk notin (low)")] == [
        False
    ] * 5
    assert selection("task=T-1,age<1h,principal,issued").beyond_requests == ("age", "principal", "issued")


@given(
    st.dictionaries(
        st.text(max_size=6),
        st.recursive(
            st.text(max_size=4) | st.booleans() | st.integers() | st.none(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab/", max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=4,
    ),
    st.text("ab/", max_size=5),
)
def test_what_is_noted_of_claims_is_what_is_found_at_their_paths(claims: dict[str, JsonValue], path: str) -> None:
    there = noted(replace(ASKING, claims=claims)).get(f"claim.{path}", ())
    found = claim_at(claims, path)
    texts = [one for one in (found if isinstance(found, list) else [found]) if isinstance(one, str | int)]
    said = {str(one).lower() if isinstance(one, bool) else str(one) for one in texts}
    assert set(there) == (
        {one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in said} if path else set()
    )
