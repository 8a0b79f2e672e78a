"""`incident drill`: what is wrong is told before anything is asked for, and figures are honest."""

import pytest
from click.testing import CliRunner

from controlplane.cli.drill import spread
from controlplane.cli.incident import incident


def test_figures_are_nearest_ranks_of_what_was_verified_and_what_was_not_is_counted() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert spread(hundred) == {"credentials": 100, "verified": 100, "p50": 50.0, "p99": 99.0, "longest": 100.0}
    assert spread([None, 2.0, 1.0]) == {"credentials": 3, "verified": 2, "p50": 1.0, "p99": 2.0, "longest": 2.0}
    assert spread([None]) == {"credentials": 1, "verified": 0, "p50": None, "p99": None, "longest": None}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "Give either --token-file or --token-command"),
        (["--token-file", "a", "--token-command", "b"], "Give either"),
        (["--token-command", "print 'it"], "is no command line"),
        (["--token-file", "a", "--within", "soon"], "--within"),
        (["--token-file", "a", "--runs", "0"], "--runs"),
    ],
)
def test_a_drill_without_an_agent_or_with_a_wrong_option_begins_nothing(options: list[str], why: str) -> None:
    run = CliRunner().invoke(incident, ["drill", "orders-read", *options])
    assert (run.exit_code, why in run.stderr) == (2, True), run.stderr
