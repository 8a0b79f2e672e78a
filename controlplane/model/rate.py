"""How many in a while, as people write it: `30/h`."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

PATTERN = r"^[1-9][0-9]{0,4}/[smhd]$"
_RATE = re.compile(r"([1-9][0-9]{0,4})/([smhd])", re.ASCII)
_SPANS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `count` in any span of the length `per`: the span slides, it does not begin anew on the hour."""

    text: str
    count: int
    per: timedelta

    def __str__(self) -> str:
        """As it was written."""
        return self.text


def parse_rate(text: object) -> RateLimit:
    """The rate written as `text`. Raises: ValueError: it is none."""
    if isinstance(text, RateLimit):
        return text
    if not isinstance(text, str) or (parts := _RATE.fullmatch(text)) is None:
        raise ValueError("write a rate as a count and a span: 5/m, 30/h or 100/d")
    return RateLimit(text=text, count=int(parts[1]), per=_SPANS[parts[2]])


Rate = Annotated[
    RateLimit,
    PlainValidator(parse_rate),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["30/h"]}),
]
