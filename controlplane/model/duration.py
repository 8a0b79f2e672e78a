"""Spans of time as people write them: `90s`, `15m`, `8h`, or ISO 8601 `PT15M`."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_VAULT = re.compile(r"([1-9][0-9]{0,5})([smh])", re.ASCII)
_ISO = re.compile(r"PT(?=[0-9])(?:([0-9]{1,3})H)?(?:([0-9]{1,5})M)?(?:([0-9]{1,6})S)?", re.ASCII)
PATTERN = r"^([1-9][0-9]{0,5}[smh]|PT(?=[0-9HMS]*[1-9])([0-9]{1,3}H)?([0-9]{1,5}M)?([0-9]{1,6}S)?)$"
"""Exactly what is a duration, for schemas."""
_UNITS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(text: object) -> timedelta:
    """The span written as Vault's `15m` or ISO 8601's `PT15M`; always positive.

    Raises: ValueError: anything else. A bare number is refused, because YAML 1.1 reads `1:30` as 90.
    """
    if isinstance(text, timedelta):
        return text
    if isinstance(text, str):
        if short := _VAULT.fullmatch(text):
            return timedelta(seconds=int(short[1]) * _UNITS[short[2]])
        if iso := _ISO.fullmatch(text):
            hours, minutes, seconds = (int(part or 0) for part in iso.groups())
            if span := timedelta(hours=hours, minutes=minutes, seconds=seconds):
                return span
    raise ValueError("write a duration with its unit: 90s, 15m, 8h or PT15M")


def format_duration(span: timedelta) -> str:
    """`span` in the largest of Vault's units that says it exactly: `15m`, `90s`."""
    seconds = int(span.total_seconds())
    for unit in ("h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^([1-9][0-9]{0,5}[smh]|PT[0-9HMS]+)$", "examples": ["15m", "PT15M"]}),
]
