"""The catalog: what the control plane grants from follows the files, and fails closed."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.sync.catalog import Catalog
from controlplane.testing.clock import START, FakeClock
from controlplane.testing.entitlements import LAYOUT

ROLES = Path(__file__).parents[2] / "roles"


class Ticks:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROLES, tmp_path / "roles"))


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


@pytest.fixture
def catalog(directory: Path, ticks: Ticks) -> Catalog:
    return Catalog(directory, LAYOUT, FakeClock(), monotonic=ticks)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_it_has_every_sound_entitlement_by_name(catalog: Catalog, directory: Path) -> None:
    names = sorted(file.stem for file in directory.glob("*.yaml"))
    assert [item.entitlement.name for item in catalog.all()] == names
    assert catalog.problems == ()
    assert catalog.get("orders-read") is not None
    assert catalog.get("no-such") is None


def test_a_change_is_seen_within_a_second(catalog: Catalog, directory: Path, ticks: Ticks) -> None:
    before = catalog.get("orders-read")
    edit(directory / "orders-read.yaml", "max: 15m", "max: 14m")
    ticks.seconds += 1
    after = catalog.get("orders-read")
    assert before is not None
    assert after is not None
    assert after.revision != before.revision


def test_nothing_is_read_again_while_no_file_changes(catalog: Catalog, ticks: Ticks) -> None:
    before = catalog.get("orders-read")
    ticks.seconds += 60
    assert catalog.get("orders-read") is before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("risk: low", "risk: low\nrisk: high"),
        ("risk: low", "risk: high"),
        ("entitlement: orders-read", "entitlement: x"),
    ],
    ids=["not read", "against policy", "not sound"],
)
def test_what_has_an_error_is_not_in_it_and_the_others_stay(
    catalog: Catalog, directory: Path, ticks: Ticks, old: str, new: str
) -> None:
    assert catalog.get("orders-read") is not None
    edit(directory / "orders-read.yaml", old, new)
    ticks.seconds += 1
    assert catalog.get("orders-read") is None
    assert catalog.get("invoice-status") is not None
    assert {problem.file for problem in catalog.problems} == {"orders-read.yaml"}


def test_an_entitlement_whose_file_is_gone_is_gone(catalog: Catalog, directory: Path, ticks: Ticks) -> None:
    assert catalog.get("orders-read") is not None
    (directory / "orders-read.yaml").unlink()
    ticks.seconds += 1
    assert catalog.get("orders-read") is None


@pytest.mark.parametrize("happens", ["gone", "tiers broken"])
def test_without_its_directory_or_its_tiers_it_has_nothing_until_they_are_back(
    catalog: Catalog, directory: Path, ticks: Ticks, happens: str
) -> None:
    assert catalog.get("orders-read") is not None
    if happens == "gone":
        directory.rename(directory.parent / "elsewhere")
    else:
        (directory / "tiers.toml").rename(directory.parent / "tiers.toml")
        (directory / "tiers.toml").write_text("[")
    ticks.seconds += 1
    assert catalog.all() == ()
    assert catalog.problems[0].rule == "unreadable"
    if happens == "gone":
        (directory.parent / "elsewhere").rename(directory)
    else:
        (directory.parent / "tiers.toml").rename(directory / "tiers.toml")
    ticks.seconds += 1
    assert catalog.get("orders-read") is not None


def test_an_exception_ends_at_midnight_although_no_file_changes(directory: Path, ticks: Ticks) -> None:
    clock = FakeClock()
    catalog = Catalog(directory, LAYOUT, clock, monotonic=ticks)
    today = START.date().isoformat()
    excepted = f"max: 2h}}\nexceptions:\n  - {{rule: ttl-above-tier, owner: x, reason: y, expires: {today}}}"
    edit(directory / "orders-read.yaml", "max: 15m}", excepted)
    assert catalog.get("orders-read") is not None
    clock.advance(timedelta(days=1))
    ticks.seconds += 1
    assert catalog.get("orders-read") is None
