"""Selections: Kubernetes' grammar, one meaning for each text, and never everything by accident (A27)."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import InvalidSelectionError
from controlplane.model.identity import IssuerName
from controlplane.model.selection import MAX_LENGTH, MAX_VALUES, Selectable, Selector
from controlplane.selectors import selection, selectors

ONE = Selectable(
    issuer=IssuerName("github"),
    subject="repo:acme/refund-agent:ref:refs/heads/main",
    entitlement="orders-refund",
    task="T-1042",
    intent="issue-refund",
    owner="team-billing@acme.example",
    labels={"team": "billing", "env": "prod"},
    risk="high",
    claims={
        "environment": "prod",
        "kubernetes.io": {"namespace": "agents"},
        "groups": ["billing", "oncall"],
        "verified": True,
        "run": 7,
        "nothing": None,
        "odd": {"x": 1.5},
    },
)


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
        ("isuer=github", 1, "there is no key isuer; there are claim, entitlement, intent, issuer"),
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
    begun = time.monotonic()
    for text in ("!" * MAX_LENGTH, "(" * MAX_LENGTH, '"\\' * (MAX_LENGTH // 2), "a" * MAX_LENGTH, "a," * 2000):
        with pytest.raises(InvalidSelectionError):
            selection(text)
    assert time.monotonic() - begun < 1


KEYS = st.sampled_from(
    [selector.example.partition("=")[0] for selector in selectors().values() if not selector.choices]
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
    nobody = Selectable(issuer=IssuerName("x"), subject="x", entitlement="x", task="x", intent="x")
    assert not parsed.selects(nobody)
    assert selector.about


def test_p12_only_selectors_that_look_at_the_caller_alone_say_so() -> None:
    claims: dict[str, JsonValue] = {"team": "x", "kubernetes.io/namespace": "agents"}
    one = Selectable(issuer=IssuerName("i"), subject="s", claims=claims, entitlement="a", task="a", intent="a")
    other = replace(one, entitlement="b", task="b", intent="b", owner="b", labels={"team": "b"}, risk="high")
    for selector in selectors().values():
        name = selector.example.partition("=")[0].partition(".")[2]
        same = list(selector.values(one, name)) == list(selector.values(other, name))
        assert selector.of_caller == same, selector.word
