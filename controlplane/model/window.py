"""A window of the week on the wall clock of a time zone: `Mon-Fri 07:00-19:00 Europe/Berlin`.

What counts is what a clock on the wall there shows. So a window that begins in the hour which daylight saving time
leaves out opens when the clock has jumped past its beginning, and in the hour that comes twice it is open twice. A
window over midnight (`22:00-06:00`) belongs to the day on which it begins.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MIDNIGHT: Final = 24 * 60  # minutes

_DAY = "|".join(DAYS)
_DAYS = rf"(?:{_DAY})(?:-(?:{_DAY}))?"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
# A region and a place, or UTC: `EST` and its like mean different things to different people.
_ZONE = r"UTC|[A-Z][A-Za-z_]*(?:/[A-Za-z0-9_+-]+){1,2}"
PATTERN: Final = rf"^{_DAYS}(?:,{_DAYS})* {_TIME}-(?:{_TIME}|24:00) (?:{_ZONE})$"
_WINDOW: Final = re.compile(rf"(?P<days>\S+) (?P<opens>{_TIME})-(?P<closes>{_TIME}|24:00) (?P<zone>\S+)", re.ASCII)
_LOOK_AHEAD: Final = 16  # days: two weeks, because daylight saving time may leave out one opening


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyWindow:
    """Days on which it begins (0 is Monday), minutes after midnight, and the zone whose wall clock counts.

    `closes` is not in it; where it is below `opens`, it is on the day after.
    """

    text: str
    days: frozenset[int]
    opens: int
    closes: int
    zone: ZoneInfo

    def __str__(self) -> str:
        """As it was written."""
        return self.text

    def holds(self, at: datetime) -> bool:
        """Whether it is open at the instant `at`."""
        there = at.astimezone(self.zone)
        day, minute = there.weekday(), there.hour * 60 + there.minute
        if self.opens < self.closes:
            return day in self.days and self.opens <= minute < self.closes
        late = day in self.days and minute >= self.opens
        early = (day - 1) % 7 in self.days and minute < self.closes
        return late or early

    def opens_after(self, at: datetime) -> datetime | None:
        """The first instant from `at` on at which it is open, in UTC; None where it is not in two weeks.

        It can begin at its own beginning, at midnight, or where the clock jumps, and nowhere else.
        """
        if self.holds(at):
            return at.astimezone(UTC)
        today = at.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        found: list[datetime] = []
        for days in range(-1, _LOOK_AHEAD):
            midnight = (today.replace(tzinfo=None) + timedelta(days=days)).replace(tzinfo=self.zone)
            jump = _jump(midnight, midnight + timedelta(days=1))
            marks = [midnight, midnight + timedelta(minutes=self.opens)]
            marks += [mark.replace(fold=1) for mark in marks]
            found += [mark.astimezone(UTC) for mark in marks]
            found += [] if jump is None else [jump]
        return min((mark for mark in found if mark > at and self.holds(mark)), default=None)


def parse_window(text: object) -> WeeklyWindow:
    """The window written as `text`.

    Raises: ValueError: with what is wrong: the days, the times, or a zone that the IANA database does not have.
    """
    if isinstance(text, WeeklyWindow):
        return text
    if not isinstance(text, str) or (parts := _WINDOW.fullmatch(text)) is None:
        raise ValueError("write a window as days, times and a zone: Mon-Fri 07:00-19:00 Europe/Berlin")
    opens, closes = _minutes(parts["opens"]), _minutes(parts["closes"])
    if opens == closes:
        raise ValueError(f"{parts['opens']}-{parts['closes']} has no length: a whole day is 00:00-24:00")
    return WeeklyWindow(
        text=text,
        days=_days(parts["days"]),
        opens=opens,
        closes=closes or MIDNIGHT,  # 22:00-00:00 ends where the day does
        zone=_zone(parts["zone"]),
    )


Window = Annotated[
    WeeklyWindow,
    PlainValidator(parse_window),
    PlainSerializer(str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": PATTERN,
            "examples": ["Mon-Fri 07:00-19:00 Europe/Berlin"],
            "description": "Days, times on the wall clock, and an IANA time zone.",
        }
    ),
]


def _days(text: str) -> frozenset[int]:
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"{part} is no day and no range of days: write Mon, Sat,Sun or Mon-Fri")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found += [day % 7 for day in range(begin, end + (7 if end < begin else 0) + 1)]
    if len(set(found)) < len(found):
        raise ValueError(f"{text} names a day twice")
    return frozenset(found)


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


def _zone(name: str) -> ZoneInfo:
    if not re.fullmatch(_ZONE, name, re.ASCII):
        raise ValueError(f"{name} is no time zone: write a region and a place, such as Europe/Berlin, or UTC")
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not there, a directory, not a file of zones
        raise ValueError(f"{name} is no time zone of the IANA database, such as Europe/Berlin") from None


def _jump(start: datetime, end: datetime) -> datetime | None:
    """The instant at which the clocks of a zone are set, within one of its days, in UTC; None where they are not."""
    low, high = start.astimezone(UTC), end.astimezone(UTC)
    zone, before = start.tzinfo, start.utcoffset()
    if high.astimezone(zone).utcoffset() == before:
        return None
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
    return high.replace(microsecond=0)
