"""The only place where a pattern meets a string; always anchored at both ends."""

import re
from collections.abc import Iterator
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    # `*` stays inside one segment: it never crosses ':' or '/', so `repo:acme/*` cannot admit a fork's ref.
    first, *pieces = (re.escape(piece) for piece in pattern.split("*"))
    if not pieces:
        return re.compile(first)
    *middle, last = pieces
    # Atomic: where a piece stands first is as good as anywhere later, so nothing is tried twice. Without it five
    # stars take minutes to refuse a subject of 255 letters, and subjects are chosen by strangers.
    return re.compile(first + "".join(f"(?>[^:/]*?{piece})" for piece in middle) + "[^:/]*" + last)


def equals(expected: str, value: str) -> bool:
    """Whether `value` is exactly `expected`: no folding, no trimming."""
    return expected == value


def globs(pattern: str, value: str) -> bool:
    """Whether the whole of `value` matches `pattern`, in which only `*` is special and never crosses ':' or '/'."""
    return _compiled(pattern).fullmatch(value) is not None


def overlap(one: str, other: str) -> bool:
    """Whether some text fits both patterns."""
    reached = {(0, 0)}
    pending = [(0, 0)]
    while pending:
        left, right = pending.pop()
        if left == len(one) and right == len(other):
            return True
        for step in _steps(one, left, other, right):
            if step not in reached:
                reached.add(step)
                pending.append(step)
    return False


def _steps(one: str, left: int, other: str, right: int) -> Iterator[tuple[int, int]]:
    mine, theirs = one[left : left + 1], other[right : right + 1]
    if mine == "*":
        yield left + 1, right
        if theirs and theirs not in ":/":
            yield left, right + 1
    if theirs == "*":
        yield left, right + 1
        if mine and mine not in ":/":
            yield left + 1, right
    if mine and mine == theirs:
        yield left + 1, right + 1
