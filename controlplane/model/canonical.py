"""JSON as a type, and the one way it is written where bytes matter."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

JsonObject = Mapping[str, JsonValue]

_WRITER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: JsonValue | JsonObject) -> bytes:
    """`value` as UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes.

    Raises: ValueError: a float that JSON does not know (NaN, infinity).
    """
    return _WRITER.encode(value).encode()


def instant(at: datetime) -> str:
    """`at` as RFC 3339 in UTC, always with microseconds and `Z`: sorts as text, and equal instants are equal text.

    Raises: ValueError: `at` has no time zone.
    """
    if at.tzinfo is None:
        raise ValueError("an instant needs a time zone")
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


__all__ = ["JsonObject", "JsonValue", "canonical", "instant"]
