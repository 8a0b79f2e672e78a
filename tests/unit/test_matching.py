"""Patterns: only `*` is special, it stays within one segment, and the whole string must match."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.model.matching import equals, globs

text = st.text(alphabet="ab:/*.?[]\\^$\n\r\u2028é漢-", max_size=12) | st.text(max_size=20)
segment = st.text(max_size=12).filter(lambda value: not re.search("[:/]", value))


@given(text, text)
def test_equals_is_equality(expected: str, value: str) -> None:
    assert equals(expected, value) == (expected == value)


@given(text.filter(lambda value: "*" not in value), text)
def test_a_pattern_without_a_star_is_equality(pattern: str, value: str) -> None:
    assert globs(pattern, value) == (pattern == value)


@given(text)
def test_every_string_without_a_star_matches_itself(value: str) -> None:
    assert globs(value.replace("*", ""), value.replace("*", ""))


@given(segment)
def test_a_star_matches_any_one_segment_or_none(inside: str) -> None:
    assert globs("repo:acme/*:ref", f"repo:acme/{inside}:ref")


@given(st.text(max_size=12), st.sampled_from(":/"), st.text(max_size=12))
def test_a_star_never_crosses_a_colon_or_a_slash(before: str, mark: str, after: str) -> None:
    assert not globs("*", before + mark + after)
    assert not globs("a*z", f"a{before}{mark}{after}z")


@given(st.text(min_size=1, max_size=12))
def test_a_pattern_is_anchored_at_both_ends(more: str) -> None:
    assert not globs("agents:refund", more + "agents:refund")
    assert not globs("agents:refund", "agents:refund" + more)


@given(text, text)
def test_a_match_has_the_colons_and_slashes_of_its_pattern(pattern: str, value: str) -> None:
    if globs(pattern, value):
        assert re.findall("[:/]", pattern) == re.findall("[:/]", value)


@given(st.lists(st.tuples(st.text(alphabet="ab.:/", max_size=4), segment), max_size=5))
def test_filling_the_stars_gives_a_match(pieces: list[tuple[str, str]]) -> None:
    pattern = "".join(f"{literal}*" for literal, _ in pieces)
    assert globs(pattern, "".join(literal + inside for literal, inside in pieces))


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("repo:acme/*", "repo:acme/agent:ref:refs/heads/main"),  # a fork's or a pull request's ref
        ("repo:acme/agent:ref:refs/heads/*", "repo:acme/agent:ref:refs/heads/feature/x"),
        ("system:serviceaccount:agents:*", "system:serviceaccount:agents:a:b"),
        ("agent", "agent\n"),
        ("agent", "\nagent"),
        ("agent*", "other\nagent"),
        ("agent", "Agent"),
        ("agent", "agent "),
        ("a.c", "abc"),
        ("a?", "ab"),
        ("[ab]", "a"),
        ("a+", "aa"),
        ("(a|b)", "a"),
        ("\\*", "*"),
        ("", "a"),
    ],
)
def test_what_looks_like_a_match_is_none(pattern: str, value: str) -> None:
    assert not globs(pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("refund-*", "refund-"),
        ("refund-*", "refund-7"),
        ("*-refund", "eu-refund"),
        ("repo:acme/*:ref:refs/heads/main", "repo:acme/agent:ref:refs/heads/main"),
        ("a*", "a\nb"),
        ("", ""),
    ],
)
def test_what_should_match_matches(pattern: str, value: str) -> None:
    assert globs(pattern, value)


def test_many_stars_do_not_make_a_match_slow() -> None:
    assert not globs("*a" * 8 + "b", "a" * 255)
