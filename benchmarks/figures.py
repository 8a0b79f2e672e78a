"""What a run says in figures: percentiles, throughput and ratios, and the JSON of it all. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from controlplane.model.canonical import JsonObject, JsonValue

RATIOS: Final = (("ours", "plain"), ("ours", "bare"), ("bare", "plain"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One grant as its agent saw it, in seconds: ask until credential in hand; finish until acknowledged."""

    asked: float
    finished: float

    @property
    def waited(self) -> float:
        """All that the agent waited for."""
        return self.asked + self.finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One way at one concurrency for a short while.

    `gone` are seconds from sending the finish until the credential was seen gone; `lasted` is from the first ask to
    the last acknowledged finish; `cleared` from the first ask until the last credential was gone; `errors` say what
    failed.
    """

    way: str
    concurrency: int
    laps: Sequence[Lap]
    gone: Sequence[float]
    errors: Sequence[str]
    lasted: float
    cleared: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All slices of one way at one concurrency; spans in seconds, rates per second.

    `served` counts grants whose agent went on; `ended` counts only time until every one of them was seen gone.
    """

    count: int
    errors: int
    waited: Mapping[str, float]
    asked: Mapping[str, float]
    finished: Mapping[str, float]
    gone: Mapping[str, float]
    served: float
    ended: float


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that `share` of all are not above (nearest rank); nan where there are none."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(share * len(ordered))) - 1] if ordered else math.nan


def summary(slices: Sequence[Slice]) -> Summary:
    """The figures of slices of one way at one concurrency, as if they had been one."""
    laps = [lap for part in slices for lap in part.laps]
    gone = [span for part in slices for span in part.gone]
    return Summary(
        count=len(laps),
        errors=sum(len(part.errors) for part in slices),
        waited=_spread(lap.waited for lap in laps),
        asked=_spread(lap.asked for lap in laps),
        finished=_spread(lap.finished for lap in laps),
        gone=_spread(gone),
        served=_rate(len(laps), sum(part.lasted for part in slices)),
        ended=_rate(len(gone), sum(part.cleared for part in slices)),
    )


def summaries(slices: Sequence[Slice]) -> dict[int, dict[str, Summary]]:
    """A summary for each concurrency and way that ran, in the order in which they first did."""
    found: dict[int, dict[str, list[Slice]]] = {}
    for part in slices:
        found.setdefault(part.concurrency, {}).setdefault(part.way, []).append(part)
    return {
        concurrency: {way: summary(parts) for way, parts in ways.items()} for concurrency, ways in sorted(found.items())
    }


def ratio(one: Summary, other: Summary) -> dict[str, float]:
    """`one` to `other`: for spans, below 1 is faster; for rates, above 1 is more."""
    return {
        "waited_p50": _part(one.waited["p50"], other.waited["p50"]),
        "waited_p99": _part(one.waited["p99"], other.waited["p99"]),
        "gone_p50": _part(one.gone["p50"], other.gone["p50"]),
        "gone_p99": _part(one.gone["p99"], other.gone["p99"]),
        "served": _part(one.served, other.served),
        "ended": _part(one.ended, other.ended),
    }


def ratios(ways: Mapping[str, Summary]) -> dict[str, dict[str, float]]:
    """The ratios that the aim speaks of, of the ways that ran."""
    return {f"{one}/{other}": ratio(ways[one], ways[other]) for one, other in RATIOS if {one, other} <= ways.keys()}


def report(slices: Sequence[Slice], setting: Mapping[str, JsonValue]) -> JsonObject:
    """Everything as JSON: spans in milliseconds, rates per second; `setting` tells of machine and versions."""
    return {
        **setting,
        "units": {"spans": "milliseconds", "rates": "grants per second"},
        "concurrency": {
            str(concurrency): {
                "ways": {way: _told(figures) for way, figures in ways.items()},
                "ratios": {name: _numbers(values) for name, values in ratios(ways).items()},
            }
            for concurrency, ways in summaries(slices).items()
        },
    }


def _told(figures: Summary) -> dict[str, JsonValue]:
    return {
        "grants": figures.count,
        "errors": figures.errors,
        "waited": _milliseconds(figures.waited),
        "asked": _milliseconds(figures.asked),
        "finished": _milliseconds(figures.finished),
        "gone": _milliseconds(figures.gone),
        "served": _number(figures.served),
        "ended": _number(figures.ended),
    }


def _spread(values: Iterable[float]) -> dict[str, float]:
    kept = list(values)
    return {"p50": percentile(kept, 0.5), "p99": percentile(kept, 0.99)}


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else math.nan


def _part(one: float, other: float) -> float:
    return one / other if other else math.nan


def _milliseconds(spread: Mapping[str, float]) -> dict[str, JsonValue]:
    return {name: _number(seconds * 1000) for name, seconds in spread.items()}


def _numbers(values: Mapping[str, float]) -> dict[str, JsonValue]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    """Three digits after the point; what nobody measured is null, because JSON has no nan."""
    return round(value, 3) if math.isfinite(value) else None
