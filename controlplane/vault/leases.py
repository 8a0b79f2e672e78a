"""Vault as the keeper of leases: what it is asked to end, and what it says of it. A 2xx is a wish, a look-up a fact.

The table of what its answers mean stands in docs/vault-facts.md.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from hvac.api.auth_methods import Token
from hvac.api.system_backend import Lease
from pydantic import AwareDatetime, BaseModel

from controlplane.model.errors import VaultRefusedError
from controlplane.model.lease import Accessor, LeaseFacts, LeaseId
from controlplane.ports import Answer
from controlplane.vault.client import VaultClient, understood
from controlplane.vault.refusal import Refusal, cleaned

PATIENCE = timedelta(seconds=30)
"""How long the target may take to let go of one credential; a locked row can hold it for minutes."""


class VaultLeases:
    """Fits `ports.Leases`. Leases of ours hang below `folders` only; None where nobody says so."""

    def __init__(
        self, broker: VaultClient, *, patience: timedelta = PATIENCE, folders: Collection[str] | None = None
    ) -> None:
        self._broker = broker
        self._folders = folders
        self._patient = broker.patient(patience)
        self._tokens: Any = Token(adapter=broker.adapter)
        self._leases: Any = Lease(adapter=broker.adapter)

    def revoke_token(self, accessor: Accessor) -> Answer:
        """Ask Vault to revoke a token and all its leases; it works later than it answers."""
        try:
            answer = self._tokens.revoke_accessor(accessor)
        except Refusal as refusal:
            if refusal.says("token not found"):
                return Answer.ZOMBIE
            if refusal.says("invalid accessor"):
                return Answer.UNKNOWN_TOKEN
            raise
        return Answer.REQUESTED if answer is None else Answer.UNKNOWN_TOKEN

    def renew(self, accessor: Accessor, leases: Sequence[LeaseId], ttl: timedelta) -> None:
        """Let the token and its leases end `ttl` from now; sooner works too, and moves a database user's deadline."""
        seconds = int(ttl.total_seconds())
        self._tokens.renew_accessor(accessor, increment=f"{seconds}s")
        for lease in leases:
            self._leases.renew_lease(lease, increment=seconds)

    def extend(self, accessor: Accessor, leases: Sequence[LeaseId], ttl: timedelta) -> None:
        """Let leases and, last, their token end `ttl` from now; what Vault gives less of counts as refused."""
        seconds = int(ttl.total_seconds())
        for lease in leases:
            given = understood(_Extended, self._leases.renew_lease(lease, increment=seconds))
            _see_enough(lease, given.lease_duration, seconds)
        token = understood(_Extended, self._tokens.renew_accessor(accessor, increment=f"{seconds}s"), "auth")
        _see_enough("the task token", token.lease_duration, seconds)

    def facts(self, lease: LeaseId) -> LeaseFacts | None:
        """What Vault knows of a lease, None once its record is gone."""
        try:
            known = understood(_Lease, self._leases.read_lease(lease), "data")
        except Refusal as refusal:
            if refusal.answered == HTTPStatus.BAD_REQUEST and refusal.says("invalid lease"):
                return None
            raise
        return LeaseFacts(
            id=LeaseId(known.id),
            issued_at=known.issue_time,
            ttl=timedelta(seconds=known.ttl),
            revoke_error=cleaned(known.revoke_error) if known.revoke_error else None,
            renewable=known.renewable,
        )

    def revoke(self, lease: LeaseId) -> None:
        """Revoke one lease and wait for the target; hvac knows no `sync`, without which Vault only promises."""
        self._patient.put("sys/leases/revoke", json={"lease_id": lease, "sync": True})

    def ask_to_revoke(self, lease: LeaseId) -> None:
        """Ask for the end of one lease; it works later than it answers."""
        self._broker.adapter.put("sys/leases/revoke", json={"lease_id": lease, "sync": False})

    def under(self, path: str) -> Sequence[LeaseId]:
        """Every lease that hangs from credentials read at `path`; none where the engine there keeps none."""
        if self._folders is not None and not any(path.startswith(f"{folder}/") for folder in self._folders):
            return []
        return [LeaseId(f"{path}/{key}") for key in self._broker.list(f"sys/leases/lookup/{path}")]


class _Lease(BaseModel):
    """OpenBao docs, api/system/leases, "Read lease"; `ttl` in seconds, negative where revoking did not succeed."""

    id: str
    issue_time: AwareDatetime
    ttl: int
    revoke_error: str | None = None
    renewable: bool = False


class _Extended(BaseModel):
    """OpenBao docs, api/system/leases, "Renew lease", and api/auth/token, "Renew a token (accessor)"; in seconds."""

    lease_duration: int


_ROUNDING = 2
"""Seconds that Vault may give less of: it counts in whole ones, from when it was reached."""


def _see_enough(what: str, given: int, wanted: int) -> None:
    if given < wanted - _ROUNDING:
        raise VaultRefusedError(
            f"Vault lets {what} live for {given} s and not for {wanted} s: a mount's max_lease_ttl?"
        )
