"""A check that fails is a finding with what to do, and never keeps the next one from being made."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from controlplane.doctor.checks import behind, unsaved
from controlplane.doctor.finding import Finding, Grade, advice, broken, examine, sound
from controlplane.doctor.power import broker_power, param_power, rotate_power, sync_power
from controlplane.model.errors import VaultUnavailableError
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId
from controlplane.model.plan import Layout
from controlplane.testing.clock import START
from controlplane.testing.cursors import FakeCursors
from controlplane.testing.entitlements import LAYOUT
from controlplane.testing.spool import FakeSpool
from controlplane.testing.store import sample_event
from controlplane.vault.policies import policy_of


def test_a_check_that_cannot_be_made_is_broken_with_the_errors_own_hint_and_the_next_one_is_made() -> None:
    def down() -> Iterable[Finding]:
        yield sound("vault", "so far")
        raise VaultUnavailableError("Vault is down")

    found = list(examine([("vault", down), ("store", lambda: [advice("store", "old", "look")])]))
    assert [(one.check, one.grade) for one in found] == [
        ("vault", Grade.SOUND),
        ("vault", Grade.BROKEN),
        ("store", Grade.ADVICE),
    ]
    assert found[1] == broken("vault", "Vault is down", VaultUnavailableError.hint)


def test_p6_ends_that_wait_for_the_store_are_told_with_since_when() -> None:
    spool = FakeSpool()
    assert list(unsaved(spool)) == []
    spool.put(sample_event(1, kind=Kind.GRANT_ENDED, grant=GrantId("gr_1")))
    (found,) = unsaved(spool)
    assert (found.check, found.grade) == ("store", Grade.ADVICE)
    assert f"1 ends of grants wait in the spool, the oldest since {START:%Y-%m-%dT%H:%M}" in found.detail


def test_l09_a_sink_that_takes_nothing_is_told_and_one_that_is_only_slow_is_not() -> None:
    cursors = FakeCursors()
    for name, attempts in (("pager", 3), ("file", 0)):
        claimed = cursors.claim(name, START, hold=timedelta(minutes=1), start=2)
        assert claimed is not None
        cursors.save(claimed, replace(claimed, attempts=attempts, due_at=START + timedelta(seconds=8), held_until=None))
    (found,) = behind(cursors, ["pager", "file", "new"], 7, now=START)
    assert found.detail == "pager: 5 events wait, after 3 tries; again in 8 s"


def test_the_grade_is_the_exit_status() -> None:
    assert [int(grade) for grade in Grade] == [0, 1, 2]


def test_what_doctor_expects_to_be_denied_is_named_in_no_shipped_policy() -> None:
    """P7."""
    layout = Layout(mounts={**LAYOUT.mounts, "kv": "kv"})
    powers = {"broker": broker_power, "sync": sync_power, "param": param_power, "rotate": rotate_power}
    for identity, power_of in powers.items():
        text, power = policy_of(layout, identity), power_of(layout)
        denied = [path for path, words in power.items() if words == ["deny"]]
        assert len(denied) >= 8
        assert [path for path in denied if f'"{path}"' in text] == []
