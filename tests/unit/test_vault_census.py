"""The census goes on looking where a login may only be slow (G12, R10)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

from controlplane.model.lease import Accessor, TokenFacts
from controlplane.testing.entitlements import LAYOUT
from controlplane.vault.census import ABSENT_LOOKS, VaultCensus
from controlplane.vault.client import VaultClient
from controlplane.vault.logins import VaultLogins

SLOW = Accessor("slow")
FACTS = TokenFacts(
    accessor=SLOW,
    kind="service",
    orphan=True,
    policies=frozenset(),
    ttl=timedelta(minutes=5),
    explicit_max_ttl=timedelta(minutes=5),
    period=timedelta(0),
    num_uses=0,
    metadata={"grant": "gr_1"},
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
)


@dataclass
class SlowVault:
    """A server that names the accessor of a new token, and has the token only after some looks at it."""

    absent_for: int
    looks: list[Accessor] = field(default_factory=list[Accessor])

    def list(self, path: str) -> Sequence[str]:
        assert path == "auth/token/accessors"
        return [SLOW]

    def looked_up(self, accessor: Accessor) -> tuple[bool, TokenFacts | None]:
        self.looks.append(accessor)
        there = len(self.looks) > self.absent_for
        return there, FACTS if there else None


def found(vault: SlowVault, rounds: int) -> int:
    """In how many of so many rounds the token was found."""
    census = VaultCensus(LAYOUT, cast("VaultClient", vault), cast("VaultLogins", vault), pause=lambda _: None)
    return sum(bool(census.survey(lambda _: frozenset()).tokens) for _ in range(rounds))


def test_a_token_whose_login_took_longer_than_the_pause_is_found_all_the_same() -> None:
    assert found(SlowVault(absent_for=1), rounds=3) == 2


def test_an_accessor_that_never_gets_a_token_is_left_alone_in_the_end() -> None:
    vault = SlowVault(absent_for=1_000)
    assert found(vault, rounds=ABSENT_LOOKS * 2) == 0
    assert len(vault.looks) == ABSENT_LOOKS
