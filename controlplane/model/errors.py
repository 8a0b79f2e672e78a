"""An error is one thing that a caller can do something about: code, HTTP status, exit status, hint."""

from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import ClassVar

from controlplane.model.decision import Reason


class ControlPlaneError(Exception):
    """What every error of ours has: a stable code, what it means to HTTP and to a shell, and what to do next."""

    code: ClassVar[str] = "internal"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    exit_status: ClassVar[int] = 1
    hint: ClassVar[str] = ""

    def __init__(self, detail: str, *, reasons: Sequence[Reason] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reasons = tuple(reasons)


class ConfigurationError(ControlPlaneError):
    """Settings, files or keys on this machine are missing or wrong; nothing was started."""

    code = "configuration"
    hint = "Correct the setting named above; `shorthold --help` lists where settings come from."


class LocalServerError(ConfigurationError):
    """A server that `dev up` runs on this machine does not start, is damaged or is not there; its data stays."""

    code = "local-server"
    hint = "`shorthold dev status` shows what runs; `shorthold dev up` goes on where it stopped."


class InvalidRequestError(ControlPlaneError):
    """The request cannot be understood; nothing was decided and nothing was made."""

    code, status = "invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY
    hint = "Correct the field named above and ask again."


class InvalidSelectionError(InvalidRequestError):
    """A selection cannot be read; nothing was selected."""

    code = "invalid-selection"
    hint = "Write key=value, key!=value, key in (a, b), key or !key, with commas between them, or all."


class EverythingSelectedError(InvalidSelectionError):
    """It selects all that there is, and nobody said in words that this is meant; nothing was cut."""

    code = "everything-selected"
    hint = 'If everything is to end, say so: --all, or over HTTP "all": true.'


class StalePreviewError(ControlPlaneError):
    """The preview is too old to say what would be cut; `detail` says what has changed since. Nothing was cut."""

    code, status = "stale-preview", HTTPStatus.CONFLICT
    hint = "Preview again, look at it, and cut by the new digest."


class NotAuthenticatedError(ControlPlaneError):
    """The bearer token proves nobody. Which check failed stands in the audit log only, so this is no oracle."""

    code, status, exit_status = "not-authenticated", HTTPStatus.UNAUTHORIZED, 3
    hint = "Send a fresh OIDC token of a configured issuer, made for this audience."


class TokenReplayedError(NotAuthenticatedError):
    """The token was good, and has asked for a grant before; nothing was made. It can still look and finish."""

    code = "token-replayed"
    hint = "Get a new token from your issuer, or repeat the same request with its Idempotency-Key."


class SignalRefusedError(ControlPlaneError):
    """The security event token is not believed; nothing was frozen. Why stands in the audit log only.

    Source: RFC 8935 2.3, where it is `authentication_failed`.
    """

    code, status, exit_status = "signal-refused", HTTPStatus.BAD_REQUEST, 3
    hint = "Sign it anew as RFC 8417 has it, for the audience that the issuer's `signals` setting names."


class KeyNeededError(ControlPlaneError):
    """The issuer hands its tokens out again, so each request names itself by a key; nothing was decided or made.

    Source: draft-ietf-httpapi-idempotency-key-header 2.7.
    """

    code, status = "idempotency-key-needed", HTTPStatus.BAD_REQUEST
    hint = "Send an Idempotency-Key of your own choice, and the same one when you repeat the same request."


class NotAllowedError(ControlPlaneError):
    """The caller is known but has no such role in the `access` settings."""

    code, status, exit_status = "not-allowed", HTTPStatus.FORBIDDEN, 3
    hint = "Ask the platform team for the role named above."


class MayNotApproveError(NotAllowedError):
    """The caller approves others' grants but not this one: his own, or his team's. The grant waits on."""

    code = "may-not-approve"
    hint = "Somebody else has to agree or refuse. What is your own you withdraw with `shorthold grant finish`."


class OtherPersonNeededError(ControlPlaneError):
    """The caller has the role, but this takes another person; nothing has changed."""

    code, status, exit_status = "other-person-needed", HTTPStatus.FORBIDDEN, 3
    hint = "Ask another responder to run the same command."


class DeniedError(ControlPlaneError):
    """A decision said no; no credential was made. `reasons` tell which decision and why."""

    code, status, exit_status = "denied", HTTPStatus.FORBIDDEN, 3
    hint = "Each reason names the decision that failed; change the request or the entitlement, not the token."


class FrozenError(DeniedError):
    """A freeze selects what was asked for; no credential was made, or none reached anybody and it is being revoked."""

    code, status = "frozen", HTTPStatus.LOCKED
    hint = "Responders have stopped this for now: do not try again until they say so."


class OverBudgetError(DeniedError):
    """Nothing but a budget of the entitlement said no: the same request may be granted later."""

    code, status = "over-budget", HTTPStatus.TOO_MANY_REQUESTS
    hint = "Finish what you do not need any more, or wait. Who is here often needs a narrower task or another budget."

    def __init__(self, detail: str, *, reasons: Sequence[Reason], retry_after: timedelta | None) -> None:
        super().__init__(detail, reasons=reasons)
        self.retry_after = retry_after


class ContextChangedError(DeniedError):
    """Decided anew, the grant would not be granted any more: it has ended, and is being revoked. `reasons` say why."""

    code = "context-changed"
    hint = "Each reason names the decision that says no now. Stop working with its credentials; they are being revoked."


class NotFoundError(ControlPlaneError):
    """No such grant, or it is somebody else's: the two are told apart only in the audit log."""

    code, status = "not-found", HTTPStatus.NOT_FOUND
    hint = "Check the id, and that the token is the one that asked for the grant."


class NoEntitlementError(NotFoundError):
    """No such entitlement, or none that this caller may know of."""

    hint = "`GET /v1/entitlements` lists what this caller may ask for."


class NotApprovedYetError(ControlPlaneError):
    """The grant waits for people to agree; nothing has been made."""

    code, status, exit_status = "not-approved-yet", HTTPStatus.CONFLICT, 4
    hint = "Wait for it: `GET /v1/grants/{id}?wait=30s`, or `shorthold grant collect --wait`."


class LapsedError(ControlPlaneError):
    """The grant waited in vain: nobody agreed or collected in time, or what was asked for is not so any more."""

    code, status = "lapsed", HTTPStatus.CONFLICT
    hint = "Ask anew; nothing was ever made for this grant."


class OtherDigestError(ControlPlaneError):
    """The digest is not that of what is asked: whoever agrees must have seen exactly this. Nothing was recorded."""

    code, status = "other-digest", HTTPStatus.CONFLICT
    hint = "Look again at what is asked, and agree to that or refuse it."


class AlreadyApprovedError(ControlPlaneError):
    """This person, perhaps under another identity, has agreed already: one person is one approval."""

    code, status = "already-approved", HTTPStatus.CONFLICT
    hint = "Nothing is left to do for you; another person has to agree, if more are needed."


class ConflictError(ControlPlaneError):
    """The same idempotency key came with another request; nothing was made."""

    code, status = "idempotency-conflict", HTTPStatus.CONFLICT
    hint = "Use a new Idempotency-Key for a new request."


class IllegalTransitionError(ControlPlaneError):
    """The grant is not in a state from which this step leads anywhere; nothing happened."""

    code, status = "illegal-transition", HTTPStatus.CONFLICT
    hint = "Look at the grant's state with `shorthold grant show`."


class EndedError(ControlPlaneError):
    """The grant has ended or is ending, in whatever way: nothing keeps it alive, and nothing was changed."""

    code, status = "ended", HTTPStatus.CONFLICT
    hint = "Stop working with its credentials; ask anew if the task is not over."


class LostRaceError(ControlPlaneError):
    """Somebody else moved the grant first; nothing of this move happened."""

    code, status = "lost-race", HTTPStatus.CONFLICT
    hint = "Look at the grant again; the other move stands."


class ReviewedError(ControlPlaneError):
    """Somebody has closed this review before; his note stands."""

    code, status = "already-reviewed", HTTPStatus.CONFLICT
    hint = "Nothing is left to do; the audit log has the note."


class NotEndedError(ControlPlaneError):
    """The grant has not ended, and a review covers all of it; the review stays open."""

    code, status = "not-ended", HTTPStatus.CONFLICT
    hint = "Wait until the grant is revoked, or have it finished; then look at all that was done with it."


class OwnReviewError(ControlPlaneError):
    """Nobody reviews what he did himself, under whichever of his identities."""

    code, status = "own-review", HTTPStatus.CONFLICT
    hint = "Somebody else with the role approver or responder closes it."


class ClockOffError(ControlPlaneError):
    """This machine's clock differs too far from Vault's or the store's.

    No grant is made by it, and what is open is ended as ever.
    """

    code, status, exit_status = "clock-off", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = (
        "Set the clocks of this machine, of Vault and of the store by a time server; they are looked at all the time."
    )


class NotSyncedError(ControlPlaneError):
    """Vault does not have this entitlement's roles as they stand in the files; no credential was made."""

    code, status, exit_status = "not-synced", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = (
        "Run `shorthold sync plan`, then `shorthold sync apply`; if nothing is to change, the control plane reads "
        "other files or is another version: restart it."
    )


class ParametersOffError(ControlPlaneError):
    """The entitlement has parameters, and this control plane has no identity that makes roles for single grants."""

    code, status, exit_status = "parameters-off", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = "Whoever runs it sets vault.param and runs `shorthold vault bootstrap`."


class RotationOffError(ControlPlaneError):
    """A secret of the entitlement is rotated when a grant ends, and this control plane has no identity for that."""

    code, status, exit_status = "rotation-off", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = "Whoever runs it sets vault.rotate and runs `shorthold vault bootstrap`."


class VaultUnavailableError(ControlPlaneError):
    """Vault did not answer, is sealed, or answered 5xx: the outcome is unknown and treated as 'it happened'."""

    code, status, exit_status = "vault-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = (
        "Nothing is lost: what a request may have made is ended. See that the server is up and unsealed at its address."
    )


class VaultRefusedError(ControlPlaneError):
    """Vault answered and said no (4xx): it did nothing."""

    code, status, exit_status = "vault-refused", HTTPStatus.BAD_GATEWAY, 2
    hint = "The server's policies or mounts differ from what is expected: run `shorthold vault bootstrap`."


class TokenRefusedError(VaultRefusedError):
    """Vault said no to a token that a person gave."""

    code = "token-refused"
    hint = "See that BAO_TOKEN or VAULT_TOKEN holds a valid token of this server that may do what is named above."


class UnexpectedTokenError(ControlPlaneError):
    """Vault issued a task token that is not exactly as planned; it is being revoked and was not used."""

    code, status, exit_status = "unexpected-token", HTTPStatus.BAD_GATEWAY, 2
    hint = "Somebody edited the JWT role: run `shorthold sync plan` to see the drift."


class StoreUnavailableError(ControlPlaneError):
    """The store or its audit log cannot be written: nothing is granted."""

    code, status, exit_status = "store-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = "Check store.url, the disk and the database; a running control plane goes on by itself when it is back."


class StoreBehindError(ControlPlaneError):
    """The store is older than Vault remembers it: restored from a backup, or lost. Nothing is granted."""

    code, status, exit_status = "store-behind", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = "An operator looks with `shorthold doctor restore` and decides; revoking goes on meanwhile."


class TargetUnavailableError(ControlPlaneError):
    """The target did not answer when asked whether a credential is gone: so it counts as not gone."""

    code, status, exit_status = "target-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = "The worker asks again by itself until the target answers."


class SinkUnavailableError(ControlPlaneError):
    """A sink did not take an audit event; it is told again, and nothing else waits for it."""

    code, status, exit_status = "sink-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = "The outbox tries again by itself; see that the receiver runs and answers 2xx."


class AuditBrokenError(ControlPlaneError):
    """The audit log is not as it was written: `detail` names the first bad record."""

    code, exit_status = "audit-broken", 2
    hint = "Keep this copy as evidence, compare it with a backup or an export, and treat later records as unproved."


class ReceiptBrokenError(ControlPlaneError):
    """The receipt is not one that the given keys signed: it proves nothing."""

    code, exit_status = "receipt-broken", 2
    hint = "Fetch it anew with `shorthold grant show`, and the keys from the control plane that made it."


class BrokenEntitlementsError(ControlPlaneError):
    """Entitlements have errors; as a broken one would look like one that nobody wants, nothing was done."""

    code, status = "broken-entitlements", HTTPStatus.UNPROCESSABLE_ENTITY
    hint = "Correct what is listed; `shorthold sync lint` looks again."


class StalePlanError(ControlPlaneError):
    """The entitlements or Vault have changed since the plan was made; nothing was applied."""

    code, status = "stale-plan", HTTPStatus.CONFLICT
    hint = "Make a new plan with `shorthold sync plan --out FILE`, look at it, and apply that."


class CanaryFailedError(ControlPlaneError):
    """A new revision issued a canary that was not proved gone again: it did not go live, the one before stands."""

    code, status, exit_status = "canary-failed", HTTPStatus.BAD_GATEWAY, 5
    hint = "Mend what is named above and apply again; what the canary left is revoked by the worker."


class NotAppliedError(ControlPlaneError):
    """Vault shows something else than what was just written: somebody else writes there too, or it drops fields."""

    code, status, exit_status = "not-applied", HTTPStatus.BAD_GATEWAY, 2
    hint = "Run `shorthold sync plan` to see what stands there now."
