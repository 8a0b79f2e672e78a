"""JSON from strangers: one reading only, or none.

Parsers that disagree are how forged tokens pass: of two equal keys Python takes the last and others the first.
"""

import json
import math
from typing import Final, NoReturn, cast

from controlplane.model.canonical import JsonValue

_MAX_DEPTH: Final = 32


def parse_object(raw: bytes) -> dict[str, JsonValue]:
    """The JSON object that `raw` says, in UTF-8.

    Raises: ValueError: it is none, or it has a key twice, a number that JSON does not know, text that UTF-8 or a
    database cannot hold, or more than 32 levels. The message never quotes what was read.
    Source: RFC 8725 3.7 (UTF-8 only), RFC 7519 4 (duplicate names), RFC 7493 (I-JSON).
    """
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except json.JSONDecodeError:
        raise ValueError("is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")  # noqa: TRY004 # a stranger's bad value, not our wrong type
    found = cast("dict[str, JsonValue]", value)
    _check(found, _MAX_DEPTH)
    return found


def _check(value: JsonValue, levels: int) -> None:
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict | list):
        if not levels:
            raise ValueError("is nested too deeply")
        if isinstance(value, dict):
            for key in value:
                _check_text(key)
        for item in value.values() if isinstance(value, dict) else value:
            _check(item, levels - 1)


def _check_text(text: str) -> None:
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("has half a character (a lone surrogate)")
    if "\x00" in text:
        raise ValueError("has a NUL character")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("has a key twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e400
        raise ValueError("has a number out of range")
    return number


def _whole(text: str) -> int:
    if len(text) > 20:  # noqa: PLR2004 # no 64-bit integer is longer; and int() of long text is slow
        raise ValueError("has a number out of range")
    return int(text)


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"has {text}, which is no number of JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_int=_whole, parse_constant=_no_constant
)
