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


class NotAuthenticatedError(ControlPlaneError):
    """The bearer token proves nobody. Which check failed stands in the audit log only, so this is no oracle."""

    code, status, exit_status = "not-authenticated", HTTPStatus.UNAUTHORIZED, 3
    hint = "Send a fresh OIDC token of a configured issuer, made for this audience."


class TokenReplayedError(NotAuthenticatedError):
    """The token was good, and has asked for a grant before; nothing was made. It can still look and finish."""

    code = "token-replayed"
    hint = "Get a new token from your issuer, or repeat the same request with its Idempotency-Key."


class NotAllowedError(ControlPlaneError):
    """The caller is known but has no such role in the `access` settings."""

    code, status, exit_status = "not-allowed", HTTPStatus.FORBIDDEN, 3
    hint = "Ask the platform team for the role named above."


class DeniedError(ControlPlaneError):
    """A decision said no; no credential was made. `reasons` tell which decision and why."""

    code, status, exit_status = "denied", HTTPStatus.FORBIDDEN, 3
    hint = "Each reason names the decision that failed; change the request or the entitlement, not the token."


class OverBudgetError(DeniedError):
    """Nothing but a budget of the entitlement said no: the same request may be granted later."""

    code, status = "over-budget", HTTPStatus.TOO_MANY_REQUESTS
    hint = "Finish what you do not need any more, or wait. Who is here often needs a narrower task or another budget."

    def __init__(self, detail: str, *, reasons: Sequence[Reason], retry_after: timedelta | None) -> None:
        super().__init__(detail, reasons=reasons)
        self.retry_after = retry_after


class NotFoundError(ControlPlaneError):
    """No such grant, or it is somebody else's: the two are told apart only in the audit log."""

    code, status = "not-found", HTTPStatus.NOT_FOUND
    hint = "Check the id, and that the token is the one that asked for the grant."


class ConflictError(ControlPlaneError):
    """The same idempotency key came with another request; nothing was made."""

    code, status = "idempotency-conflict", HTTPStatus.CONFLICT
    hint = "Use a new Idempotency-Key for a new request."


class IllegalTransitionError(ControlPlaneError):
    """The grant is not in a state from which this step leads anywhere; nothing happened."""

    code, status = "illegal-transition", HTTPStatus.CONFLICT
    hint = "Look at the grant's state with `shorthold grant show`."


class LostRaceError(ControlPlaneError):
    """Somebody else moved the grant first; nothing of this move happened."""

    code, status = "lost-race", HTTPStatus.CONFLICT
    hint = "Look at the grant again; the other move stands."


class NotSyncedError(ControlPlaneError):
    """Vault does not have this entitlement's roles as they stand in the files; no credential was made."""

    code, status, exit_status = "not-synced", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = (
        "Run `shorthold sync plan`, then `shorthold sync apply`; if nothing is to change, the control plane reads "
        "other files or is another version: restart it."
    )


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


class TargetUnavailableError(ControlPlaneError):
    """The target did not answer when asked whether a credential is gone: so it counts as not gone."""

    code, status, exit_status = "target-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, 2
    hint = "The worker asks again by itself until the target answers."


class AuditBrokenError(ControlPlaneError):
    """The audit log is not as it was written: `detail` names the first bad record."""

    code, exit_status = "audit-broken", 2
    hint = "Keep this copy as evidence, compare it with a backup or an export, and treat later records as unproved."


class BrokenEntitlementsError(ControlPlaneError):
    """Entitlements have errors; as a broken one would look like one that nobody wants, nothing was done."""

    code, status = "broken-entitlements", HTTPStatus.UNPROCESSABLE_ENTITY
    hint = "Correct what is listed; `shorthold sync lint` looks again."


class StalePlanError(ControlPlaneError):
    """The entitlements or Vault have changed since the plan was made; nothing was applied."""

    code, status = "stale-plan", HTTPStatus.CONFLICT
    hint = "Make a new plan with `shorthold sync plan --out FILE`, look at it, and apply that."


class NotAppliedError(ControlPlaneError):
    """Vault shows something else than what was just written: somebody else writes there too, or it drops fields."""

    code, status, exit_status = "not-applied", HTTPStatus.BAD_GATEWAY, 2
    hint = "Run `shorthold sync plan` to see what stands there now."
