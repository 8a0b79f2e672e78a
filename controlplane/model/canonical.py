"""JSON as a type, and the one way it is written where bytes matter."""

import json
from collections.abc import Mapping

from pydantic import JsonValue

JsonObject = Mapping[str, JsonValue]


def canonical(value: JsonValue | JsonObject) -> bytes:
    """`value` as UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes.

    Raises: ValueError: a float that JSON does not know (NaN, infinity).
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


__all__ = ["JsonObject", "JsonValue", "canonical"]
