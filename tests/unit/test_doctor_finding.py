"""A check that fails is a finding with what to do, and never keeps the next one from being made."""

from collections.abc import Iterable

from controlplane.doctor.checks import broker_power, sync_power
from controlplane.doctor.finding import Finding, Grade, advice, broken, examine, sound
from controlplane.model.errors import VaultUnavailableError
from controlplane.testing.entitlements import LAYOUT
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


def test_the_grade_is_the_exit_status() -> None:
    assert [int(grade) for grade in Grade] == [0, 1, 2]


def test_what_doctor_expects_to_be_denied_is_named_in_no_shipped_policy() -> None:
    """P7."""
    for identity, power in (("broker", broker_power(LAYOUT)), ("sync", sync_power(LAYOUT))):
        text = policy_of(LAYOUT, identity)
        denied = [path for path, words in power.items() if words == ["deny"]]
        assert len(denied) >= 8
        assert [path for path in denied if f'"{path}"' in text] == []
