"""kill -9 of real servers and control planes by seeded schedules; after each, the oracle (P2-P4, P6; G01-G18, R01-R29).

The same schedules by the thousand: `make chaos`. One of them again: `make chaos SEED=n STORE=sqlite`.
"""

import os
import sys
from collections.abc import Generator
from typing import Final

import pytest

from controlplane.dev.stack import Stack
from tests.chaos.play import play
from tests.chaos.schedule import schedule
from tests.chaos.site import Site, servers, site

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

KINDS: Final = ("sqlite", "postgresql")
SEEDS: Final = range(int(os.environ.get("CHAOS_SCHEDULES", "25")))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    with servers(tmp_path_factory.mktemp("chaos")) as stack:
        yield stack


@pytest.fixture(scope="module", params=KINDS)
def played_on(own: Stack, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    with site(own, tmp_path_factory.mktemp(request.param), request.param) as made:
        yield made
        assert made.granted > len(SEEDS), "hardly anybody was granted anything: this proved little"


@pytest.mark.parametrize("number", SEEDS)
def test_after_a_schedule_with_kill_9_what_lives_is_what_is_active(played_on: Site, number: int) -> None:
    seed = len(KINDS) * number + KINDS.index(played_on.kind)  # as the long run shares them out
    report = play(played_on, schedule(seed, replicas=len(played_on.planes)))
    sys.stdout.write(f"{report}\n")
    assert report.deaths, "nobody was killed"
