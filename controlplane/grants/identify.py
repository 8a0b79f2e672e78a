"""Find out who asks; a token that proves nobody leaves its reason in the audit log only."""

import threading
from dataclasses import dataclass, field
from datetime import datetime

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.event import Kind
from controlplane.model.identity import VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.ports import Clock, Issuers, Recorder, Store

RECORDED_PER_SECOND = 20
"""Rejections, or replays, that leave an event each. Anybody can cause them, and every event is a durable write."""


class Rejections:
    """Counts rejections, so that a flood of them cannot fill the audit log. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._second: datetime | None = None
        self._recorded = 0
        self._left_out = 0

    def admit(self, now: datetime) -> int | None:
        """How many were left out since the last one that was recorded; None where this one is left out, too."""
        second = now.replace(microsecond=0)
        with self._lock:
            if second != self._second:
                self._second, self._recorded = second, 0
            if self._recorded >= RECORDED_PER_SECOND:
                self._left_out += 1
                return None
            self._recorded += 1
            left_out, self._left_out = self._left_out, 0
            return left_out


@dataclass(frozen=True, slots=True, kw_only=True)
class Identify:
    """Token in, verified claims out."""

    clock: Clock
    issuers: Issuers
    store: Store
    record: Recorder
    rejections: Rejections = field(default_factory=Rejections)

    def __call__(self, token: Secret | None) -> VerifiedClaims:
        """Whoever the token proves.

        Raises: NotAuthenticatedError: always with the same words, whatever was wrong, so that a caller
        cannot use us to try out tokens.
        """
        if token is None:
            raise NotAuthenticatedError("no bearer token was sent")
        try:
            return self.issuers.verify(token)
        except NotAuthenticatedError as error:
            self._tell(error.detail)
            raise NotAuthenticatedError("the bearer token is not valid here") from None

    def _tell(self, reason: str) -> None:
        left_out = self.rejections.admit(self.clock.now())
        if left_out is None:
            return
        body: dict[str, JsonValue] = {"reason": reason, **({"left_out_before": left_out} if left_out else {})}
        with self.store.transaction() as tx:
            tx.append(self.record(Kind.TOKEN_REJECTED, **body))
