"""Look at cuts: how far one has come, what resists and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.model.access import Role, Standing
from controlplane.model.cut import Cut, CutId, Outcome, Progress
from controlplane.model.errors import NotFoundError
from controlplane.model.grant import Grant, State
from controlplane.ports import Store

_MANY = 1_000
"""Grants that one look names; all of them are counted."""
_LEFT = (Outcome.RESIDUAL, Outcome.UNVERIFIABLE)
_LOOKERS = (Role.RESPONDER, Role.AUDITOR, Role.PLATFORM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A grant that is not verified gone: why, and what a person can do."""

    grant: Grant
    why: str
    todo: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A cut as it stands. It is worth looking again until the cut has an `ended_at`."""

    cut: Cut
    progress: Progress
    residual: Sequence[Left]
    unverifiable: Sequence[Left]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowCuts:
    """What a responder, an auditor and the platform team may see of cuts."""

    store: Store

    def __call__(self, standing: Standing, id: CutId, *, details: bool = True) -> Seen:
        """One cut; without `details` only its figures.

        Raises: NotAllowedError: the caller has none of these roles; NotFoundError: no such cut.
        """
        standing.must_be(*_LOOKERS)
        cut = self.store.cut(id)
        if cut is None:
            raise NotFoundError(f"there is no cut {id}")
        progress = self.store.progress(id)
        left = {one: self._some(id, one) for one in _LEFT if details and progress.of(one)}
        return Seen(
            cut=cut,
            progress=progress,
            residual=[_residual(grant) for grant in left.get(Outcome.RESIDUAL, ())],
            unverifiable=[_unverifiable(grant) for grant in left.get(Outcome.UNVERIFIABLE, ())],
        )

    def page(
        self, standing: Standing, *, running: bool = False, before: CutId | None = None, limit: int = 100
    ) -> Sequence[Cut]:
        """A page of cuts, newest first. Raises: NotAllowedError: the caller has none of these roles."""
        standing.must_be(*_LOOKERS)
        return self.store.cuts(running=running, before=before, limit=limit)

    def _some(self, id: CutId, outcome: Outcome) -> Sequence[Grant]:
        return self.store.of_cut(id, [outcome], limit=_MANY)


def _residual(grant: Grant) -> Left:
    todo = "Nothing: it is tried again by itself. If the target is down or hangs, bring it back."
    if grant.state is State.IRREVOCABLE:
        todo = (
            "Vault has given it up. End it at the target by hand, by the principal below, and mend what Vault met "
            "there; then it is tried again by itself and becomes verified."
        )
    return Left(grant=grant, why=grant.failing or "it has been tried several times", todo=todo)


def _unverifiable(grant: Grant) -> Left:
    ended = () if grant.receipt is None else grant.receipt.ended
    why = "; ".join(dict.fromkeys(end.evidence for end in ended if not end.verified))
    return Left(
        grant=grant,
        why=why or "no target was there to be asked",
        todo="Vault has let go of it. Where the evidence says that it lives on, change it at the target itself.",
    )
