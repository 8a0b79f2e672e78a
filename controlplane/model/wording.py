"""What pydantic finds wrong with a value, in words for whoever wrote it. The value itself is never in them."""

import re
from collections.abc import Mapping
from typing import Final

from controlplane.model.parameter import VALUE

_NAME: Final = re.compile(r"\^\[a-z\]\[a-z0-9(?P<under>_?)-\](?:\{(?P<least>\d+),(?P<most>\d+)\}|[*+])\$")
_PATTERNS: Final[dict[str, str]] = {
    "^gr_[a-z2-7]{24}$": "a grant's id is gr_ and 24 small letters and digits",
    "^fz_[a-z2-7]{24}$": "a freeze's id is fz_ and 24 small letters and digits",
    r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$": "letters, digits and . _ : / - only, a letter or digit first, at most 128",
    r"^[\x21-\x7e]{1,128}$": "1 to 128 visible ASCII characters, no blanks",
    "^(completed|failed)$": "completed or failed",
    r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+$": "one line without control characters",
    "^[a-z][a-z0-9_]{0,31}$": "small letters, digits and _ only, a letter first, at most 32",
    VALUE: "letters, digits, _ and - only, at most 63",
}
"""What patterns mean; those of plain names are read by themselves. Engines add their own by `explained`."""
UNEXPLAINED: Final = "it is not written as it should be here"


def explained(pattern: str, words: str) -> str:
    """The same pattern, and from now on `words` are what a text has to be to match it: for files that bring their own.

    Raises: ValueError: somebody else said something else of it.
    """
    if _PATTERNS.setdefault(pattern, words) != words:
        raise ValueError(f"{pattern} is explained as {_PATTERNS[pattern]!r} already")
    return pattern


def worded(kind: str, message: str, context: Mapping[str, object]) -> str:  # noqa: PLR0911 # a table: one line a kind
    """One error: pydantic's type, message and context of it as a sentence."""
    match kind:
        case "string_pattern_mismatch":
            return pattern_worded(str(context.get("pattern")))
        case "value_error":
            return message.removeprefix("Value error, ")
        case "extra_forbidden":
            return "there is no such field"
        case "missing":
            return "it is missing"
        case "json_invalid":
            return "this is no JSON"
        case "too_short" | "string_too_short":
            least = context.get("min_length")
            return "it is empty" if least == 1 else f"it has to be {least} at least"
        case "too_long" | "string_too_long":
            return f"it is longer than {context.get('max_length')}"
        case _:
            return message.replace("Input should be", "it should be").replace("valid string", "text")


def pattern_worded(pattern: str) -> str:
    """What a text has to be to match `pattern`."""
    name = _NAME.fullmatch(pattern)
    if name is None:
        return _PATTERNS.get(pattern, UNEXPLAINED)
    letters = "small letters, digits, _ and -" if name["under"] else "small letters, digits and -"
    length = f", {int(name['least']) + 1} to {int(name['most']) + 1} characters" if name["least"] else ""
    return f"{letters} only, a letter first{length}"
