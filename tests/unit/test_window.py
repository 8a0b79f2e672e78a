"""Windows: what a clock on the wall of their zone shows, whatever daylight saving time does to it (C7, T02)."""

import contextlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.model.window import DAYS, WeeklyWindow, parse_window

MINUTE = timedelta(minutes=1)
# Around a change of the clocks: an hour ahead, an hour back, half an hour, at midnight, across a day, a zone far off.
CHANGES = [
    ("Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2026, 10, 25, 1, 0, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, 0, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, 0, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, 0, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 23, 22, 0, tzinfo=UTC)),
    ("Asia/Beirut", datetime(2026, 3, 28, 22, 0, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, 0, tzinfo=UTC)),  # there was no 30 December 2011 there
    ("Asia/Kathmandu", datetime(2026, 1, 5, tzinfo=UTC)),
    ("UTC", datetime(2026, 1, 4, 23, 0, tzinfo=UTC)),
]


def shown(at: datetime, zone: str) -> tuple[str, str]:
    """Day and time as a clock on the wall shows them: what the scan below compares as text."""
    there = at.astimezone(ZoneInfo(zone))
    return there.strftime("%a"), there.strftime("%H:%M")


def scanned(days: set[str], opens: str, closes: str, zone: str, at: datetime) -> bool:
    day, time = shown(at, zone)
    before = DAYS[DAYS.index(day) - 1]
    if opens < closes:
        return day in days and opens <= time < closes
    return (day in days and time >= opens) or (before in days and time < closes)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, set[str], str, str, str, datetime]:
    zone, change = draw(st.sampled_from(CHANGES))
    names: list[str] = [*DAYS]
    days = draw(st.sets(st.sampled_from(names), min_size=1))
    times = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.sampled_from([0, 1, 15, 30, 59]))
    opens = draw(times)
    closes = draw(times.filter(lambda time: time != opens) | st.just("24:00"))
    text = f"{','.join(day for day in DAYS if day in days)} {opens}-{closes} {zone}"
    return text, {*days}, opens, "24:00" if closes == "00:00" else closes, zone, change


@settings(max_examples=60, deadline=None)
@given(written(), st.integers(-26 * 60, 26 * 60))
def test_c7_a_window_is_open_when_the_clock_on_the_wall_says_so(
    case: tuple[str, set[str], str, str, str, datetime], minutes: int
) -> None:
    text, days, opens, closes, zone, change = case
    window = parse_window(text)
    for minute in range(minutes, minutes + 120):
        at = change + minute * MINUTE
        assert window.holds(at) == scanned(days, opens, closes, zone, at), at


@settings(max_examples=30, deadline=None)
@given(written(), st.integers(-26 * 60, 4 * 60))
def test_c7_the_next_opening_is_the_first_minute_that_a_scan_finds_open(
    case: tuple[str, set[str], str, str, str, datetime], minutes: int
) -> None:
    text, days, opens, closes, zone, change = case
    start = change + minutes * MINUTE
    every = (start + minute * MINUTE for minute in range(16 * 24 * 60))
    found = next((at for at in every if scanned(days, opens, closes, zone, at)), None)
    assert parse_window(text).opens_after(start) == found


@pytest.mark.parametrize(
    ("text", "opens", "shuts"),
    [
        # Over the hour that is left out (01:00 UTC: 02:00 becomes 03:00) a night is an hour shorter …
        ("Sat 22:00-06:00 Europe/Berlin", "2026-03-28T21:00", "2026-03-29T04:00"),
        # … a window that begins in it opens when it is over …
        ("Sun 02:30-03:30 Europe/Berlin", "2026-03-29T01:00", "2026-03-29T01:30"),
        # … and over the hour that comes twice (01:00 UTC: 03:00 becomes 02:00) a night is an hour longer.
        ("Sat 22:00-06:00 Europe/Berlin", "2026-10-24T20:00", "2026-10-25T05:00"),
        ("Sun 02:00-03:00 Europe/Berlin", "2026-10-25T00:00", "2026-10-25T02:00"),
        ("Mon-Fri 07:00-19:00 Europe/Berlin", "2026-01-05T06:00", "2026-01-05T18:00"),
        ("Mon-Fri 07:00-19:00 Europe/Berlin", "2026-07-06T05:00", "2026-07-06T17:00"),
        ("Sun-Mon 00:00-24:00 UTC", "2026-01-04T00:00", "2026-01-06T00:00"),
        ("Sun 20:00-00:00 UTC", "2026-01-04T20:00", "2026-01-05T00:00"),
    ],
)
def test_c7_a_window_over_a_change_of_the_clocks_opens_and_shuts_at_these_instants(
    text: str, opens: str, shuts: str
) -> None:
    window, first, last = parse_window(text), _utc(opens), _utc(shuts)
    at = first - MINUTE
    assert not window.holds(at)
    assert window.opens_after(at) == first
    while at < last - MINUTE:
        at += MINUTE
        assert window.holds(at), at
    assert not window.holds(last)


def test_c7_in_the_hour_that_comes_twice_a_window_within_it_is_open_twice() -> None:
    window = parse_window("Sun 02:15-02:45 Europe/Berlin")
    first, second = _utc("2026-10-25T00:15"), _utc("2026-10-25T01:15")
    assert window.holds(first)
    assert not window.holds(first + 30 * MINUTE)
    assert window.opens_after(first + 30 * MINUTE) == second


def test_c7_a_window_in_the_hour_that_is_left_out_opens_a_week_later() -> None:
    window = parse_window("Sun 02:15-02:45 Europe/Berlin")
    assert window.opens_after(_utc("2026-03-29T00:00")) == _utc("2026-04-05T00:15")


def test_the_same_window_in_two_zones_opens_at_two_instants() -> None:
    at = _utc("2026-01-05T00:00")
    assert parse_window("Mon 09:00-10:00 Asia/Tokyo").opens_after(at) == at
    assert parse_window("Mon 09:00-10:00 Europe/Berlin").opens_after(at) == _utc("2026-01-05T08:00")
    assert parse_window("Mon 09:00-10:00 Europe/London").opens_after(at) == _utc("2026-01-05T09:00")


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("Mon 09:00-10:00 UTC", {0}),
        ("Mon-Fri 09:00-10:00 UTC", {0, 1, 2, 3, 4}),
        ("Fri-Mon 09:00-10:00 UTC", {4, 5, 6, 0}),
        ("Mon,Wed,Fri-Sat 09:00-10:00 UTC", {0, 2, 4, 5}),
        ("Mon-Mon 09:00-10:00 UTC", {0}),
    ],
)
def test_days_are_days_and_ranges_of_days(text: str, days: set[int]) -> None:
    assert parse_window(text).days == days
    assert str(parse_window(text)) == text
    assert parse_window(parse_window(text)) == parse_window(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write a window"),
        ("Mon-Fri", "write a window"),
        ("Mon-Fri 7:00-19:00 Europe/Berlin", "write a window"),
        ("Mon-Fri 07:00-25:00 Europe/Berlin", "write a window"),
        ("Mon-Fri 07:00-24:30 Europe/Berlin", "write a window"),
        ("Mon-Fri 24:00-07:00 Europe/Berlin", "write a window"),
        ("Mon-Fri 07:60-19:00 Europe/Berlin", "write a window"),
        ("Mon-Fri 07:00-19:00", "write a window"),
        ("Mon-Fri  07:00-19:00 Europe/Berlin", "write a window"),
        ("Mon-Fri 07:00-19:00 Europe/Berlin\n", "write a window"),
        ("Mon-Fri \u0660\u0667:00-19:00 Europe/Berlin", "write a window"),
        ("mon-fri 07:00-19:00 Europe/Berlin", "no range of days"),
        ("Mon-Fri-Sun 07:00-19:00 Europe/Berlin", "no range of days"),
        ("Mon- 07:00-19:00 Europe/Berlin", "no range of days"),
        ("Mon,,Tue 07:00-19:00 Europe/Berlin", "no range of days"),
        ("Mon-Wed,Tue 07:00-19:00 Europe/Berlin", "names a day twice"),
        ("Mon 07:00-07:00 Europe/Berlin", "has no length"),
        ("Mon 00:00-00:00 Europe/Berlin", "has no length"),
        ("Mon 07:00-19:00 Europe/Atlantis", "no time zone of the IANA database"),
        ("Mon 07:00-19:00 Europe", "no time zone"),
        ("Mon 07:00-19:00 EST", "no time zone"),
        ("Mon 07:00-19:00 CET", "no time zone"),
        ("Mon 07:00-19:00 +01:00", "no time zone"),
        ("Mon 07:00-19:00 ../../etc/passwd", "no time zone"),
        ("Mon 07:00-19:00 Europe/../Europe/Berlin", "no time zone"),
        ("Mon 07:00-19:00 /etc/localtime", "no time zone"),
        ("Mon 07:00-19:00 America/Argentina", "no time zone of the IANA database"),
        (700, "write a window"),
        (None, "write a window"),
        (["Mon 07:00-19:00 UTC"], "write a window"),
    ],
)
def test_what_is_no_window_is_refused_with_what_to_write(text: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_window(text)


@given(st.text(alphabet="MonFri0179:-, /UTCEuropeBn", max_size=40) | st.text(max_size=30))
def test_any_text_is_a_window_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_window(text), WeeklyWindow)


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
