"""What an operator says of an issuer, whatever its kind; each kind extends it with its own."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from controlplane.issuers import kinds
from controlplane.model.duration import Duration
from controlplane.model.entitlement import Name

Algorithm = Literal["ES256", "ES384", "RS256", "EdDSA"]
Replay = Literal["single-use", "reusable"]
MAX_LIFETIME = timedelta(hours=1)
"""Of an issuer's token, where its settings say nothing else."""


class IssuerOptions(BaseModel):
    """One party whose tokens are believed. `url` is compared with `iss` byte for byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: str
    url: str
    audiences: tuple[str, ...] = Field(min_length=1)
    algorithms: tuple[Algorithm, ...] = Field(default=("ES256",), min_length=1)
    replay: Replay = "single-use"
    """Whether one token may ask for one grant only; docs/adr/0009."""
    leeway: Duration = timedelta(seconds=30)
    max_lifetime: Duration = MAX_LIFETIME
    required: tuple[str, ...] = ()
    """Claims that must be there, besides those that the kind requires; `/` descends."""
    claims: tuple[str, ...] | None = ()
    """Claims that entitlements may name, besides those that the kind knows; None: whatever the issuer signs."""
    person: str | None = None
    """The claim that says who is behind a token whichever issuer signed it, such as `email`: it must be there then.
    Nobody agrees with himself by way of a second identity."""
    signals: tuple[str, ...] = ()
    """Audiences of its security event tokens (RFC 8417); without any, nothing is believed that it signals."""
    jwks_file: Path | None = None
    """A key set on this machine instead of discovery; read anew when it changes."""
    jwks_uri: str | None = None
    """Pins where the key set is, for an issuer that keeps it on another host than `url`; nothing is discovered."""
    cacert: Path | None = None

    @property
    def open_to_all(self) -> bool:
        """Whether anybody in the world can get a token of it, with a subject that begins as he likes."""
        return False


def by_kind(raw: object) -> object:
    """Let the kind that `raw` names read its own options; what is no table is left to the caller to refuse.

    Raises: ValueError: there is no such kind, or, as pydantic's ValidationError, what is wrong by name.
    """
    if not isinstance(raw, dict):
        return raw
    fields = cast("dict[str, Any]", raw)
    kind = fields.get("kind", "oidc")
    if not isinstance(kind, str) or kind not in kinds():
        raise ValueError(f"kind must be one of: {', '.join(sorted(kinds()))}")
    options: type[IssuerOptions] = kinds()[kind].options
    return options.model_validate(fields)
