"""Thaw: end a freeze before its time, with a reason; everything that was frozen takes two people."""

from dataclasses import dataclass

from controlplane.model.access import Role, Standing
from controlplane.model.errors import InvalidSelectionError, LostRaceError, NotFoundError, OtherPersonNeededError
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze, FreezeId, Thaw
from controlplane.model.identity import VerifiedClaims, names_of
from controlplane.ports import Clock, Recorder, Store
from controlplane.selectors import selection

_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ThawFreeze:
    """One responder's wish that a freeze end. What was refused meanwhile has to be asked for anew."""

    clock: Clock
    record: Recorder
    store: Store

    def __call__(self, who: VerifiedClaims, standing: Standing, id: FreezeId, *, reason: str) -> Freeze:
        """The freeze after it; one that has ended stays as it was. `thawed_at` None: another person has to agree.

        Raises:
            NotAllowedError: the caller is no responder.
            NotFoundError: no such freeze.
            OtherPersonNeededError: it freezes the caller by name, or he has agreed before, by this or another name.
        """
        standing.must_be(Role.RESPONDER)
        for left in reversed(range(_TRIES)):
            freeze = self.store.freeze(id)
            if freeze is None:
                raise NotFoundError(f"there is no freeze {id}")
            if not freeze.active(self.clock.now()):
                return freeze
            try:
                return self._thaw(freeze, who, reason)
            except LostRaceError:
                if not left:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    def _thaw(self, freeze: Freeze, who: VerifiedClaims, reason: str) -> Freeze:
        everything = _another_person(freeze, who)
        thaw = Thaw(issuer=who.issuer, subject=who.subject, person=who.person, at=self.clock.now(), reason=reason)
        thawed = freeze.agreed(thaw, enough=bool(freeze.thaws) or not everything)
        kind = Kind.THAW_AGREED if thawed.thawed_at is None else Kind.SELECTION_THAWED
        with self.store.transaction() as tx:
            tx.thaw(freeze, thawed, self.record(kind, **freeze.told_of(thaw)))
        return thawed


def _another_person(freeze: Freeze, who: VerifiedClaims) -> bool:
    """Whether two people are needed. Raises: OtherPersonNeededError: one is, and it is not `who`."""
    if any(thaw.names & who.names for thaw in freeze.thaws):
        raise OtherPersonNeededError(f"you, or somebody of your name, has agreed to thaw {freeze.id} before")
    try:
        parsed = selection(freeze.selection)
    except InvalidSelectionError:  # it refuses everything, as `grants/frozen.py` has it
        return True
    if any(names_of(subject, None) & who.names for subject in parsed.named("subject")):
        raise OtherPersonNeededError(f"{freeze.id} freezes you by name: somebody else thaws it")
    return parsed.everything
