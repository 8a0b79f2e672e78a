"""The keys of one issuer: fixed, or fetched from the issuer itself and kept fresh without anybody waiting."""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from controlplane.issuers.jose.fetch import Fetcher, FetchError
from controlplane.issuers.jose.jwk import KeySet, VerificationKey, parse_key_set
from controlplane.issuers.jose.strict_json import parse_object
from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.outgoing import place_of

REFRESH_AFTER: Final = timedelta(minutes=4)
"""Keys older than this are fetched anew in the background."""
LIFETIME: Final = timedelta(minutes=5)
"""Keys older than this are used only if the issuer was asked and did not answer: by then a removed key is refused."""
STALE_LIFETIME: Final = timedelta(hours=1)
"""Keys older than this are not used at all, whatever the issuer's state."""
COOL_DOWN: Final = timedelta(seconds=10)
"""The issuer is asked no more often than this, whatever tokens name."""


class KeyStore(Protocol):
    """Gives the keys that may have signed a token."""

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        """The issuer's keys for this algorithm and `kid`; never empty.

        Raises: NotAuthenticatedError: there is none, or the issuer's keys cannot be had.
        """
        ...


class StaticKeys:
    """Keys that an operator pinned."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        """See KeyStore."""
        return self._keys.candidates(algorithm, kid) or _unknown(self._keys, algorithm, kid)


def static_keys(document: JsonObject, *, use: str = "sig") -> StaticKeys:
    """Keys from a JWKS document. Raises: ConfigurationError: it is none, or has no sound key."""
    try:
        return StaticKeys(parse_key_set(document, use))
    except ValueError as error:
        raise ConfigurationError(f"an issuer's static key set {error}") from None


class FileKeys:
    """Keys in a JWKS file that somebody else may replace: read anew as soon as it is another one. Thread-safe.

    Raises: ConfigurationError: it cannot be read, or has no sound key.
    """

    def __init__(self, path: Path, *, use: str = "sig") -> None:
        self._path, self._use = path, use
        self._read: tuple[_Stamp, KeySet] = self._load()

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        """See KeyStore. A file that became unreadable gives no keys: an old one may hold a key that was withdrawn."""
        try:
            if self._stamp() != self._read[0]:
                self._read = self._load()
        except ConfigurationError as error:
            raise NotAuthenticatedError(error.detail) from None
        keys = self._read[1]
        return keys.candidates(algorithm, kid) or _unknown(keys, algorithm, kid)

    def _stamp(self) -> "_Stamp":
        try:
            found = self._path.stat()
        except OSError as error:
            raise ConfigurationError(f"the key set {self._path} cannot be read: {error.strerror}") from None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _load(self) -> "tuple[_Stamp, KeySet]":
        stamp = self._stamp()  # before reading: what is written meanwhile is read next time
        try:
            return stamp, parse_key_set(parse_object(self._path.read_bytes()), self._use)
        except OSError as error:
            raise ConfigurationError(f"the key set {self._path} cannot be read: {error.strerror}") from None
        except ValueError as error:
            raise ConfigurationError(f"the key set {self._path} {error}") from None


_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Fetched:
    keys: KeySet
    at: float


class DiscoveredKeys:
    """The keys that the issuer at `url` publishes now. Thread-safe; many callers at once cause one fetch.

    A known key never waits while keys are younger than LIFETIME, and nobody waits while the issuer is known to be down:
    he is refused at once, and the next who asks once it is back is not. A new key works within COOL_DOWN, a removed one
    is refused after LIFETIME (STALE_LIFETIME while the issuer does not answer).
    Only the configured `url` is ever asked, and a key set of the same origin unless `jwks_uri` pins another.
    Raises: ConfigurationError: `url` or `jwks_uri` is no URL to fetch keys from.
    Source: OpenID Connect Discovery 1.0, 4; RFC 8725 3.10 (no URL from a token is ever followed).
    """

    def __init__(
        self,
        url: str,
        *,
        jwks_uri: str | None = None,
        use: str = "sig",
        fetch: Callable[[str], dict[str, JsonValue]] | None = None,
        timeout: timedelta = timedelta(seconds=5),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        asked = jwks_uri or url
        try:
            place = place_of(asked)
        except ValueError as error:
            raise ConfigurationError(f"the issuer's address {asked!r} {error}") from None
        if jwks_uri is None and "?" in place.target:  # OpenID Connect Discovery 3
            raise ConfigurationError(f"the issuer's address {url!r} must not have a query")
        self._url = url
        self._jwks_uri, self._use = jwks_uri, use
        self._fetch = fetch or Fetcher(timeout=timeout)
        # Discovery and key set, one after the other, and a little for the machine.
        self._patience = timeout.total_seconds() * 2 + 1
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._fetched: _Fetched | None = None
        self._failure: str | None = None
        self._flight: Future[None] | None = None
        self._asked_at: float | None = None

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
        """See KeyStore. Waits for the issuer only where nothing that is known will do."""
        keys = self._fresh()
        found = keys.candidates(algorithm, kid)
        # Who names an unknown key waits for no issuer that is known to be down: a flood of those would fill the door.
        if not found and self._ask(wait=self._failure is None):
            keys = self._fresh()
            found = keys.candidates(algorithm, kid)
        return found or _unknown(keys, algorithm, kid)

    def _fresh(self) -> KeySet:
        fetched = self._fetched
        age = self._monotonic() - fetched.at if fetched else float("inf")
        if age > REFRESH_AFTER.total_seconds():
            # Nobody waits for an issuer that is known to be down: with none of its keys, that would be every caller.
            usable = age <= LIFETIME.total_seconds() or (
                age <= STALE_LIFETIME.total_seconds() and self._failure is not None
            )
            self._ask(wait=not usable and self._failure is None)
            fetched = self._fetched
            age = self._monotonic() - fetched.at if fetched else float("inf")
        if fetched is None or age > STALE_LIFETIME.total_seconds():
            raise NotAuthenticatedError(f"the issuer's keys cannot be had: {self._failure or 'it does not answer'}")
        return fetched.keys

    def _ask(self, *, wait: bool) -> bool:
        """Ask the issuer, or join those who do; False where it was asked less than COOL_DOWN ago."""
        with self._lock:
            flight = self._flight
            if flight is None:
                now = self._monotonic()
                if self._asked_at is not None and now - self._asked_at < COOL_DOWN.total_seconds():
                    return False
                self._asked_at = now
                flight = Future[None]()
                try:
                    threading.Thread(target=self._fly, args=(flight,), name="issuer-keys", daemon=True).start()
                except RuntimeError:  # the machine starts no more threads
                    self._failure = "this machine starts no more threads"
                    return False
                self._flight = flight
        if wait:
            with contextlib.suppress(TimeoutError):
                flight.result(self._patience)
        return True

    def _fly(self, flight: Future[None]) -> None:
        asked_at = self._monotonic()
        try:
            self._fetched = _Fetched(self._get(), asked_at)
            self._failure = None
        except FetchError as error:
            self._failure = str(error)  # what was fetched before stays: one failure must not wipe it
        finally:
            with self._lock:  # also waits until `_ask` has noted this flight
                self._flight = None
            flight.set_result(None)

    def _get(self) -> KeySet:
        jwks_uri = self._jwks_uri or self._discover()
        try:
            return parse_key_set(self._fetch(jwks_uri), self._use)
        except ValueError as error:
            raise FetchError(f"{jwks_uri} {error}") from None

    def _discover(self) -> str:
        where = f"{self._url.removesuffix('/')}/.well-known/openid-configuration"
        document = self._fetch(where)
        if document.get("issuer") != self._url:  # OpenID Connect Discovery 4.3: exactly
            raise FetchError(f"{where} is another issuer's: `issuer` is not exactly {self._url}")
        jwks_uri = document.get("jwks_uri")
        try:
            if isinstance(jwks_uri, str) and place_of(jwks_uri).origin == place_of(self._url).origin:
                return jwks_uri
        except ValueError:
            pass
        raise FetchError(f"{where} names a key set of another origin; pin it as the issuer's jwks_uri if it is right")


def _unknown(keys: KeySet, algorithm: str, kid: str | None) -> Sequence[VerificationKey]:
    named = "without a kid, which must leave no choice" if kid is None else f"with kid {kid[:64]!a}"
    left_out = f"; left out: {'; '.join(keys.refused[:4])}" if keys.refused else ""
    raise NotAuthenticatedError(f"the issuer has no {algorithm} key {named}{left_out}")
