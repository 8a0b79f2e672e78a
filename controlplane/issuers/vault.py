"""Vault's and OpenBao's own identity tokens: whoever can log in there, by whatever auth method, is a workload here."""

import re
from typing import Final

from pydantic import Field

from controlplane.issuers.trust.kind import REGISTERED, Kind, refuse_unless, verified
from controlplane.issuers.trust.options import Algorithm, IssuerOptions
from controlplane.model.identity import VerifiedClaims

_ENTITY: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class VaultOptions(IssuerOptions):
    """`url` is the server's address, or what its `identity/oidc/config` names, and `/v1/identity/oidc`.

    `claims` names what the roles' templates add.
    """

    kind: str = "vault"
    url: str = Field(pattern=r"^https?://[^?#]+/v1/(?:[^?#]+/)?identity/oidc$")
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "ES384", "EdDSA")


def _check(who: VerifiedClaims, options: VaultOptions) -> None:
    del options
    refuse_unless(_ENTITY.fullmatch(who.subject) is not None, "sub is not the id of an entity")


KIND = Kind(
    word="vault",
    options=VaultOptions,
    check=_check,
    # Source: OpenBao docs, secrets/identity/identity-token, "Token contents and templates"
    claims={**REGISTERED, "namespace": verified()},
)
