"""Signals: what issuers say has happened to their subjects; a session that is revoked there is frozen here."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.grants.identify import Rejections
from controlplane.incident.freeze import settled
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import (
    InvalidSelectionError,
    LostRaceError,
    NotAuthenticatedError,
    SignalRefusedError,
)
from controlplane.model.event import Kind
from controlplane.model.freeze import Freeze, FreezeId
from controlplane.model.secret import Secret
from controlplane.model.selection import Operator, Selection, Term
from controlplane.model.signal import SESSION_REVOKED, Signal
from controlplane.ports import Clock, Issuers, Recorder, Store
from controlplane.selectors import selection, selectors


@dataclass(frozen=True, slots=True, kw_only=True)
class HearSignal:
    """Security event token in, what it says out."""

    clock: Clock
    issuers: Issuers
    record: Recorder
    store: Store
    refusals: Rejections = field(default_factory=Rejections)

    def __call__(self, token: Secret) -> Signal:
        """What the token says, if it is an issuer's own and about a subject of its own.

        Raises: SignalRefusedError: always with the same words; what was wrong stands in the audit log.
        """
        try:
            signal = self.issuers.signal(token)
            if signal.event == SESSION_REVOKED:
                frozen_by(signal)
        except (NotAuthenticatedError, InvalidSelectionError) as error:
            self._tell(error.detail)
            raise SignalRefusedError("the security event token is not valid here") from None
        return signal

    def _tell(self, reason: str) -> None:
        left_out = self.refusals.admit(self.clock.now())
        if left_out is None:
            return
        body: dict[str, JsonValue] = {"reason": reason, **({"left_out_before": left_out} if left_out else {})}
        with self.store.transaction() as tx:
            tx.append(self.record(Kind.SIGNAL_REFUSED, **body))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeedSignal:
    """A session that its issuer has revoked gets nothing new here, on any replica, before the answer returns."""

    clock: Clock
    record: Recorder
    store: Store

    def __call__(self, signal: Signal) -> Freeze | None:
        """The freeze that it made, or had made before; None where it tells of something that freezes nothing.

        The same signal again changes nothing, even when a responder has thawed its freeze meanwhile. The freeze ends
        by itself once every token that was signed before it has expired: whoever logs in anew was let in anew.
        """
        if signal.event != SESSION_REVOKED:
            with self.store.transaction() as tx:
                tx.append(self.record(Kind.SIGNAL_RECEIVED, **_told(signal, None)))
            return None
        freeze = self._freeze(signal)
        if (before := self.store.freeze(freeze.id)) is not None:
            return before
        received = self.record(Kind.SIGNAL_RECEIVED, **_told(signal, freeze))
        try:
            with self.store.transaction() as tx:
                tx.freeze(freeze, received, self.record(Kind.SELECTION_FROZEN, **freeze.told()))
        except LostRaceError:  # the same signal, at another replica
            return self.store.freeze(freeze.id)
        settled(self.store)
        return freeze

    def _freeze(self, signal: Signal) -> Freeze:
        now = self.clock.now()
        ends = now + signal.over_in
        return Freeze(
            id=_freeze_id(signal),
            selection=str(frozen_by(signal)),
            message=f"Your issuer says that your session is over: log in anew and ask after {ends:%Y-%m-%d %H:%M:%S}Z.",
            reason=f"session-revoked, signal {signal.id}",
            issuer=signal.issuer,
            subject="security-events",
            created_at=now,
            expires_at=ends,
        )


def frozen_by(signal: Signal) -> Selection:
    """The workload whose session is over, and nobody else.

    Raises: InvalidSelectionError: the signal is about no subject of its issuer, or one that no selection can name.
    """
    if signal.subject is None:
        raise InvalidSelectionError("sub_id is missing or not an iss_sub of a subject of this issuer")
    named: Mapping[str, str] = {"issuer": signal.issuer, "subject": signal.subject}
    terms = (
        Term(selector=selectors()[word], name="", operator=Operator.IN, values=frozenset({value}))
        for word, value in named.items()
    )
    # Read back as every replica will read it: what cannot be read would freeze everybody.
    return selection(str(Selection(terms=tuple(terms))))


def _freeze_id(signal: Signal) -> FreezeId:
    """The same for the same signal, for ever: so that whoever sends it again does nothing."""
    digest = hashlib.sha256(f"{signal.issuer}\x00{signal.id}".encode()).digest()
    return FreezeId(f"fz_{base64.b32encode(digest[:15]).decode().lower()}")


def _told(signal: Signal, freeze: Freeze | None) -> dict[str, JsonValue]:
    return {
        "issuer": signal.issuer,
        "signal": signal.id,
        "event": signal.event,
        "subject": signal.subject,
        "freeze": None if freeze is None else freeze.id,
    }
