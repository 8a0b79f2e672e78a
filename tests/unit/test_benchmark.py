"""The benchmark's arithmetic: percentiles, rates, ratios and the shape of its JSON. No clock, no server, no bound."""

import json
import math

import pytest

from benchmarks.figures import Lap, Slice, percentile, ratios, report, summaries, summary


def _slice(way: str, *spans: float, concurrency: int = 1, errors: tuple[str, ...] = ()) -> Slice:
    return Slice(
        way=way,
        concurrency=concurrency,
        laps=[Lap(asked=span * 0.75, finished=span * 0.25) for span in spans],
        gone=[span * 2 for span in spans],
        errors=errors,
        lasted=sum(spans),
        cleared=sum(spans) * 2,
    )


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0), (0.001, 1.0), (0.0, 1.0), (0.505, 51.0)]
)
def test_a_percentile_is_the_smallest_value_that_so_many_are_not_above(share: float, expected: float) -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, share) == expected


def test_a_percentile_of_one_value_is_that_value_and_of_none_is_nothing() -> None:
    assert percentile([3.0], 0.5) == percentile([3.0], 0.99) == 3.0
    assert math.isnan(percentile([], 0.5))


def test_slices_of_one_way_are_summed_as_if_they_had_been_one() -> None:
    figures = summary([_slice("ours", 1.0, 3.0), _slice("ours", 2.0, errors=("refused",))])
    assert (figures.count, figures.errors) == (3, 1)
    assert figures.waited == {"p50": 2.0, "p99": 3.0}
    assert figures.asked == {"p50": 1.5, "p99": 2.25}
    assert figures.finished == {"p50": 0.5, "p99": 0.75}
    assert figures.gone == {"p50": 4.0, "p99": 6.0}
    assert figures.served == pytest.approx(3 / 6)
    assert figures.ended == pytest.approx(3 / 12)


def test_concurrencies_are_kept_apart() -> None:
    found = summaries([_slice("ours", 1.0, concurrency=8), _slice("ours", 2.0), _slice("plain", 4.0, concurrency=8)])
    assert {concurrency: list(ways) for concurrency, ways in found.items()} == {1: ["ours"], 8: ["ours", "plain"]}
    assert found[8]["ours"].waited["p50"] == 1.0


def test_ratios_are_ours_to_both_others_and_bare_to_plain() -> None:
    ways = summaries([_slice("plain", 4.0), _slice("bare", 2.0), _slice("ours", 3.0)])[1]
    found = ratios(ways)
    assert {name: values["waited_p50"] for name, values in found.items()} == {
        "ours/plain": 0.75,
        "ours/bare": 1.5,
        "bare/plain": 0.5,
    }
    assert found["ours/plain"]["served"] == pytest.approx(4 / 3)
    assert list(ratios({name: ways[name] for name in ("plain", "ours")})) == ["ours/plain"]


def test_the_report_is_json_with_spans_in_milliseconds() -> None:
    told = json.loads(json.dumps(report([_slice("plain", 0.004), _slice("ours", 0.003)], {"machine": {"cores": 2}})))
    assert told["machine"] == {"cores": 2}
    assert told["units"] == {"spans": "milliseconds", "rates": "grants per second"}
    ours = told["concurrency"]["1"]["ways"]["ours"]
    assert ours["waited"] == {"p50": 3.0, "p99": 3.0}
    assert ours["served"] == pytest.approx(1 / 0.003, abs=0.001)
    assert told["concurrency"]["1"]["ratios"]["ours/plain"]["waited_p50"] == 0.75


def test_what_nobody_measured_is_null() -> None:
    nothing = Slice(way="ours", concurrency=1, laps=(), gone=(), errors=("refused",), lasted=0.0, cleared=0.0)
    ours = json.loads(json.dumps(report([nothing], {}), allow_nan=False))["concurrency"]["1"]["ways"]["ours"]
    assert (ours["grants"], ours["errors"], ours["waited"]["p50"], ours["served"]) == (0, 1, None, None)
