"""Find out who asks; a token that proves nobody leaves its reason in the audit log only."""

from dataclasses import dataclass

from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.event import Kind
from controlplane.model.identity import VerifiedClaims
from controlplane.model.secret import Secret
from controlplane.ports import Issuers, Recorder, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Identify:
    """Token in, verified claims out."""

    issuers: Issuers
    store: Store
    record: Recorder

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
            with self.store.transaction() as tx:
                tx.append(self.record(Kind.TOKEN_REJECTED, reason=error.detail))
            raise NotAuthenticatedError("the bearer token is not valid here") from None
