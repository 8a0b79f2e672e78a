"""A kind of issuer as data: every claim of its tokens accounted for, and what the claims must say of each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, TypeVar

from controlplane.issuers.trust.options import IssuerOptions
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import NotAuthenticatedError
from controlplane.model.identity import VerifiedClaims

Shape = Callable[[JsonValue], bool]


def text(value: JsonValue) -> bool:
    """A string that says something."""
    return isinstance(value, str) and value != ""


def maybe_text(value: JsonValue) -> bool:
    """A string, which may be empty."""
    return isinstance(value, str)


def number(value: JsonValue) -> bool:
    """A whole number of at most 20 digits, in digits as a string: an id that is never given to another."""
    return isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20  # noqa: PLR2004 # 64 bits


def flag(value: JsonValue) -> bool:
    """`true` or `false`, as CI systems write it: a string."""
    return value in {"true", "false"} if isinstance(value, str) else False


def words(value: JsonValue) -> bool:
    """A list of strings."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def anything(value: JsonValue) -> bool:
    """Whatever the issuer signs."""
    del value
    return True


@dataclass(frozen=True, slots=True)
class Claim:
    """What is done with one claim: it must be there, or is checked where it is; or it is ignored, and why."""

    shape: Shape = text
    needed: bool = False
    ignored: str = ""


def required(shape: Shape = text) -> Claim:
    """It must be there, have this shape, and may be selected by."""
    return Claim(shape, needed=True)


def verified(shape: Shape = text) -> Claim:
    """Where it is there it must have this shape; it may be selected by."""
    return Claim(shape)


def ignored(why: str) -> Claim:
    """It proves nothing, for this reason: no entitlement can select by it."""
    return Claim(anything, ignored=why)


REGISTERED: Final[Mapping[str, Claim]] = MappingProxyType(
    {
        "iss": required(),
        "sub": required(),
        "aud": required(anything),
        "exp": required(anything),
        "iat": required(anything),
        "nbf": verified(anything),
        "jti": verified(),
    }
)
"""Source: RFC 7519 4.1. What these say is checked for all kinds alike, in `trust/issuer.py`."""

JWT_TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})

Options = TypeVar("Options", bound=IssuerOptions)


def _nothing_more(who: VerifiedClaims, options: IssuerOptions) -> None:
    del who, options


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[Options]):
    """One kind of issuer.

    `check` raises NotAuthenticatedError where claims contradict each other or the options. `types` are what the
    header's `typ` may say, `key_use` what a key's `use` must say. With `by_subject` its tokens need no `iss`: they
    are known by their `sub`, which begins with the issuer's `url` and a slash.
    """

    word: str
    options: type[Options]
    claims: Mapping[str, Claim]
    check: Callable[[VerifiedClaims, Options], None] = _nothing_more
    types: frozenset[str] = JWT_TYPES
    key_use: str = "sig"
    by_subject: bool = False


def said(who: VerifiedClaims, path: str) -> str:
    """The text of the claim at `path`, empty where there is none."""
    value = who.claim(path)
    return value if isinstance(value, str) else ""


def refuse_unless(holds: bool, why: str) -> None:  # noqa: FBT001 # reads as the sentence that it is
    """Raises: NotAuthenticatedError: it does not hold."""
    if not holds:
        raise NotAuthenticatedError(why)
