"""Cut: order that everything ends which a preview showed, on disk before anything is done; the worker does it."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.incident.freeze import freezable, settled
from controlplane.incident.preview import is_everything
from controlplane.model.access import Role, Standing
from controlplane.model.canonical import instant
from controlplane.model.cut import FRESH, Changed, Cut, CutId, Preview
from controlplane.model.duration import format_duration
from controlplane.model.errors import (
    EverythingSelectedError,
    InvalidSelectionError,
    LostRaceError,
    NotFoundError,
    StalePreviewError,
)
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.identity import VerifiedClaims
from controlplane.ports import Clock, Ids, Recorder, Store, Wake
from controlplane.selectors import selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordered:
    """The cut; what has changed since it was previewed; and whether every replica obeys its freeze already."""

    cut: Cut
    changed: Changed
    settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderCut:
    """From a preview to a cut: freeze, cut and items are saved together, so that nothing slips in between."""

    clock: Clock
    ids: Ids
    record: Recorder
    store: Store
    wake: Wake

    def __call__(
        self,
        who: VerifiedClaims,
        standing: Standing,
        digest: str,
        *,
        incident: str,
        reason: str,
        freeze: bool = True,
        message: str | None = None,
        everything: bool = False,
    ) -> Ordered:
        """Cut what the preview of this digest selects. Ordering the same again gives the cut that there is.

        With `freeze` no new grant of it is made either, until that is thawed; `message` is told to whom it refuses.

        Raises:
            NotAllowedError: the caller is no responder.
            NotFoundError: nobody was shown anything under this digest.
            StalePreviewError: it was too long ago.
            EverythingSelectedError: it selects everything, and `everything` does not say so.
            InvalidSelectionError: it cannot be frozen: say so by `freeze`.
        """
        standing.must_be(Role.RESPONDER)
        shown = self.store.previewed(digest)
        if shown is None:
            raise NotFoundError("nobody was shown a preview of this digest")
        wanted = selection(shown.selection)
        changed = self.store.changed(wanted, shown)
        if (before := self.store.cut_by(digest)) is not None:
            return Ordered(cut=before, changed=changed, settled=settled(self.store))
        now = self.clock.now()
        if now - shown.at > FRESH:
            raise StalePreviewError(_stale(shown, changed, now))
        if not everything and is_everything(wanted, self.store.survey(wanted, now)):
            raise EverythingSelectedError(f"{shown.selection} selects everything that there is")
        frozen = self._freeze(who, shown, incident, reason, message) if freeze else None
        cut = Cut(
            id=CutId(self.ids.new("ct")),
            incident=incident,
            selection=shown.selection,
            digest=digest,
            previewed_at=shown.at,
            reason=reason,
            issuer=who.issuer,
            subject=who.subject,
            freeze=None if frozen is None else frozen.id,
            ordered_at=now,
        )
        try:
            with self.store.transaction() as tx:
                if frozen is not None:
                    tx.freeze(frozen, self.record(Kind.SELECTION_FROZEN, **frozen.told()))
                tx.cut(cut, self.record(Kind.CUT_ORDERED, **_told(cut)))
                tx.take(cut, wanted)
        except LostRaceError:
            twin = self.store.cut_by(digest)
            if twin is None:
                raise
            cut = twin
        self.wake()
        return Ordered(cut=cut, changed=changed, settled=settled(self.store))

    def _freeze(self, who: VerifiedClaims, shown: Preview, incident: str, reason: str, message: str | None) -> Freeze:
        try:
            wanted = freezable(shown.selection)
        except InvalidSelectionError as error:
            raise InvalidSelectionError(f"{error.detail}; or cut without a freeze") from None
        return Freeze(
            id=FreezeId(self.ids.new("fz")),
            selection=str(wanted),
            message=message or f"Incident {incident}: responders have stopped this.",
            reason=reason,
            issuer=who.issuer,
            subject=who.subject,
            created_at=self.clock.now(),
        )


def _stale(shown: Preview, changed: Changed, now: datetime) -> str:
    old = format_duration(now - shown.at)
    return (
        f"the preview of {shown.selection} is {old} old, and may be {format_duration(FRESH)}: of its {shown.count} "
        f"grants {changed.ended} have ended since, and {changed.new} are new"
    )


def _told(cut: Cut) -> dict[str, str | None]:
    return {
        "cut": cut.id,
        "incident": cut.incident,
        "selection": cut.selection,
        "digest": cut.digest,
        "previewed_at": instant(cut.previewed_at),
        "freeze": cut.freeze,
        "reason": cut.reason,
        "issuer": cut.issuer,
        "subject": cut.subject,
    }
