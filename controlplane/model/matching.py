"""The only place where a pattern meets a string; always anchored at both ends."""

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    # `*` stays inside one segment: it never crosses ':' or '/', so `repo:acme/*` cannot admit a fork's ref.
    return re.compile("".join("[^:/]*" if char == "*" else re.escape(char) for char in pattern))


def equals(expected: str, value: str) -> bool:
    """Whether `value` is exactly `expected`: no folding, no trimming."""
    return expected == value


def globs(pattern: str, value: str) -> bool:
    """Whether the whole of `value` matches `pattern`, in which only `*` is special and never crosses ':' or '/'."""
    return _compiled(pattern).fullmatch(value) is not None
