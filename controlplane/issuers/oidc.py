"""Any OpenID Connect issuer, by discovery or with a pinned key set: what its claims mean, its operator knows."""

from controlplane.issuers.trust.kind import REGISTERED, Kind, ignored
from controlplane.issuers.trust.options import IssuerOptions

_CEREMONY = ignored("it belongs to the log-in of a person at another client")


class OidcOptions(IssuerOptions):
    """Every claim that it signs may be selected by, unless `claims` names those that may."""

    kind: str = "oidc"
    claims: tuple[str, ...] | None = None


KIND = Kind(
    word="oidc",
    options=OidcOptions,
    # Source: OpenID Connect Core 2, 3.1.3.6, 3.3.2.11
    claims={
        **REGISTERED,
        **dict.fromkeys(("nonce", "at_hash", "c_hash", "s_hash", "auth_time", "sid"), _CEREMONY),
    },
)
