"""SPIFFE: JWT-SVIDs of one trust domain, verified with the domain's bundle; `sub` says whose they are, not `iss`."""

import re
from typing import Final, Self

from pydantic import Field, model_validator

from controlplane.issuers.trust.kind import (
    JWT_TYPES,
    REGISTERED,
    Kind,
    anything,
    ignored,
    refuse_unless,
    verified,
)
from controlplane.issuers.trust.options import Algorithm, IssuerOptions, Replay
from controlplane.model.identity import VerifiedClaims

_PATH: Final = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)+", re.ASCII)


class SpiffeOptions(IssuerOptions):
    """`url` is the trust domain's own id, `spiffe://acme.example`. The bundle is a file or at its endpoint's URL.

    The Workload API hands one SVID out again until half of its time has passed: it cannot be single-use.
    """

    kind: str = "spiffe"
    url: str = Field(pattern=r"^spiffe://[a-z0-9._-]{1,255}$")
    algorithms: tuple[Algorithm, ...] = ("ES256", "ES384", "RS256")
    replay: Replay = "reusable"

    @model_validator(mode="after")
    def _has_a_bundle(self) -> Self:
        if (self.jwks_file is None) == (self.jwks_uri is None):
            raise ValueError("the trust domain's bundle must be given, as jwks_file or as jwks_uri")
        return self


def _check(who: VerifiedClaims, options: SpiffeOptions) -> None:
    # SPIFFE-ID 2: the trust domain was compared before; the path has no empty, `.` or `..` segments, nothing escaped.
    path = who.subject.removeprefix(options.url)
    refuse_unless(_PATH.fullmatch(path) is not None, "sub is not the SPIFFE ID of a workload")


KIND = Kind(
    word="spiffe",
    options=SpiffeOptions,
    check=_check,
    # Source: SPIFFE JWT-SVID 3 (claims), 2.3 (typ), SPIFFE Trust Domain and Bundle 4.2.2 (use)
    claims={
        **REGISTERED,
        "iss": ignored("nothing says who may use which; the trust domain in sub is what the bundle answers for"),
        "iat": verified(anything),
    },
    types=JWT_TYPES | {"jose"},
    key_use="jwt-svid",
    by_subject=True,
)
