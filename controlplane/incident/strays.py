"""Look for tokens, leases and users under our names that should not exist: as the reconciler does, and no more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from controlplane.engines.dialects.terms.group import group_of
from controlplane.grants.covered import may_be_of, unheld
from controlplane.model.errors import (
    ControlPlaneError,
    TargetUnavailableError,
    VaultRefusedError,
    VaultUnavailableError,
)
from controlplane.model.grant import GrantId
from controlplane.model.orphan import Login, OrphanKind
from controlplane.ports import Census, Clock, Leases, Logins, Roster, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """One thing that no open grant covers; `place` is Vault or a target, `grant` what it says it belongs to."""

    kind: OrphanKind
    name: str
    place: str
    grant: GrantId | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strays:
    """What was found, and who did not answer: there may be more at those."""

    found: Sequence[Stray]
    unasked: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FindStrays:
    """`census` begins to look anew each time. `named` are targets that can list every user named as ours are."""

    clock: Clock
    store: Store
    logins: Logins
    leases: Leases
    census: Callable[[], Census]
    rosters: Mapping[str, Roster]
    named: Mapping[str, Callable[[str], Sequence[Login]]]

    def __call__(self) -> Strays:
        """Everything that is there now. Takes its time where there are many tokens. Nothing is changed.

        What is being issued, or was interrupted and settles, is left out: its own worker sees to it.
        Raises: StoreUnavailableError.
        """
        found: list[Stray] = []
        unasked: list[str] = []
        looks = {"vault: tokens": self._tokens, "vault: leases": self._leases}
        looks |= {target: lambda target=target: self._users(target) for target in self.rosters}
        for place, look in looks.items():
            try:
                found += look()
            except (VaultUnavailableError, VaultRefusedError, TargetUnavailableError) as error:
                unasked.append(_said(place, error))
        return Strays(found=found, unasked=unasked)

    def _tokens(self) -> Iterator[Stray]:
        for token in self.census().survey(self.store.held_tokens).tokens:
            why = unheld(self.store, token)
            if why and self.logins.facts(token.accessor) is not None:  # who ended since is none
                named = GrantId(token.metadata["grant"]) if "grant" in token.metadata else None
                place = token.metadata.get("role", "")
                yield Stray(kind=OrphanKind.TOKEN, name=token.accessor, place=place, grant=named, detail=why)

    def _leases(self) -> Iterator[Stray]:
        for path in self.census().places():
            listed = self.leases.under(path)
            # In this order: whoever made one of these leases is issuing still, or has saved it by now.
            unsettled = [grant for grant in self.store.unsettled() if path in grant.paths]
            for lease in sorted(set(listed) - self.store.held_leases(listed)):
                facts, known = self.leases.facts(lease), self.store.lease(lease)
                if facts is None or (known is None and may_be_of(unsettled, facts, self.clock.now())):
                    continue
                grant, detail = (None, "no grant knows it") if known is None else (known[0], "its grant has ended")
                yield Stray(kind=OrphanKind.LEASE, name=lease, place=path, grant=grant, detail=detail)

    def _users(self, target: str) -> Iterator[Stray]:
        """Members of our group roles, and whoever is named as if we had made him."""
        there = self._there(target)
        # In this order, as with leases. A user is put into its group in the transaction that makes it.
        settling = {group_of(path.rpartition("/")[2]) for grant in self.store.unsettled() for path in grant.paths}
        held = self.store.held_principals()
        left = {name: login for name, login in there.items() if name not in held and login.group not in settling}
        still = self._there(target) if left else {}  # who ended since is none
        for name, login in sorted(left.items()):
            if name not in still:
                continue
            ends = "never" if login.valid_until is None else f"{login.valid_until:%Y-%m-%dT%H:%M:%SZ}"
            member = f"member of {login.group}" if login.group else "in no group of ours, but named like ours"
            detail = f"no open grant has it; {member}; new sessions until {ends}, {login.sessions} open"
            yield Stray(kind=OrphanKind.LOGIN, name=name, place=target, grant=None, detail=detail)

    def _there(self, target: str) -> dict[str, Login]:
        named = {login.name: login for login in self.named.get(target, _nobody)(target)}
        return named | {login.name: login for login in self.rosters[target].logins(target)}


def _nobody(target: str) -> Sequence[Login]:
    del target
    return ()


def _said(place: str, error: ControlPlaneError) -> str:
    return f"{place}: {error.detail}"
