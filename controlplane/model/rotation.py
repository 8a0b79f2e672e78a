"""Rotation: a static secret ends by being replaced, at the place where whoever checks it reads it."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The version that replaces what was read, and when it was known to be there."""

    version: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a lease of a static secret ends with: each of `fields` becomes random text of `length`.

    Whoever checks the secret reads it anew within `reread`: until then the old one may still be good. `made` is None as
    long as it is not known that it was replaced.
    """

    fields: tuple[str, ...]
    length: int
    reread: timedelta
    made: Made | None = None
