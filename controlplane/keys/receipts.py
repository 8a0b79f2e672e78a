"""The keys of receipts: one that signs, those that once did, and how anybody checks what they signed.

A key of its own: what the task key signs opens Vault. To change it, move `receipt.pem` to `receipt-<anything>.pem` and
start anew; what it signed stays good as long as that file is there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK, PyJWS
from jwt.exceptions import PyJWTError

from controlplane.keys.files import SigningKey, load, load_or_create
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import ConfigurationError, ReceiptBrokenError

FILE: Final = "receipt.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptKeys:
    """`public` are JWKs (RFC 7517), the signing key's first."""

    signer: SigningKey
    public: Sequence[Mapping[str, str]]


def receipt_keys(directory: Path) -> ReceiptKeys:
    """The keys in `directory`; the signing one is made there if it does not exist yet.

    Raises: ConfigurationError: a key file is not readable by us alone, or is none.
    """
    signer = load_or_create(directory / FILE)
    retired = [load(path) for path in sorted(directory.glob("receipt-*.pem"))]
    return ReceiptKeys(signer=signer, public=[key.jwk for key in (signer, *retired)])


def public_keys(content: str) -> Mapping[str | None, EllipticCurvePublicKey]:
    """The P-256 keys in a JWK set by `kid`, or the one in a PEM, under None. Others are left out.

    Raises: ConfigurationError: it is neither.
    """
    try:
        if content.lstrip().startswith("-----BEGIN"):
            key = load_pem_public_key(content.encode())
            found: dict[str | None, object] = {None: key}
        else:
            told = json.loads(content)["keys"]
            found = {item.get("kid"): PyJWK(item).key for item in told if item.get("kty") == "EC"}
    except (ValueError, TypeError, KeyError, AttributeError, PyJWTError):
        raise ConfigurationError("the keys are neither a JWK set nor a public key in PEM") from None
    return {
        kid: key
        for kid, key in found.items()
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    }


def verified(signed: str, keys: Mapping[str | None, EllipticCurvePublicKey], claim: str = "receipt") -> JsonObject:
    """What the receipt says, once one of `keys` is known to have signed it. Source: RFC 7515 5.2.

    Or what else stands under the one `claim` that was signed. Raises: ReceiptBrokenError: none of them did, or it is
    no such thing.
    """
    jws = PyJWS(algorithms=["ES256"])
    try:
        kid = jws.get_unverified_header(signed).get("kid")
        key = keys.get(kid, keys.get(None))
        if key is None:
            raise ReceiptBrokenError(f"none of the keys has the id {str(kid)[:80]!r}")
        payload = json.loads(jws.decode(signed, key, algorithms=["ES256"]))
    except (PyJWTError, ValueError, RecursionError) as error:
        raise ReceiptBrokenError(f"its signature is not right ({type(error).__name__})") from None
    told = cast("dict[str, Any]", payload).get(claim) if isinstance(payload, dict) else None
    if not isinstance(told, dict) or len(cast("dict[str, Any]", payload)) != 1:
        raise ReceiptBrokenError(f"what was signed is no {claim.replace('_', ' ')}")
    return cast("dict[str, Any]", told)
