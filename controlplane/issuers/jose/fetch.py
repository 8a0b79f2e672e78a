"""One JSON document from one configured address, with limits on its size and time."""

import ssl
from datetime import timedelta
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final

from controlplane import __version__
from controlplane.issuers.jose.strict_json import parse_object
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ConfigurationError
from controlplane.outgoing import Exchange, place_of

MAX_BYTES: Final = 512 * 1024
"""The longest document that is read; real ones have a few KiB."""

_HEADERS: Final = {"Accept": "application/json", "User-Agent": f"shorthold/{__version__}"}


class FetchError(Exception):
    """The document could not be had; the message says why, without anything of what was read."""


class Fetcher:
    """Gets JSON objects; `timeout` covers all of one document, however slowly its bytes drip in. Thread-safe.

    Raises: ConfigurationError: the CA file is no good.
    """

    def __init__(self, *, cacert: Path | None = None, timeout: timedelta = timedelta(seconds=5)) -> None:
        try:
            self._exchange = Exchange(timeout=timeout, cacert=cacert)
        except OSError as error:
            raise ConfigurationError(f"the CA file {cacert} of an issuer cannot be used: {error.strerror}") from None

    @property
    def timeout(self) -> timedelta:
        """How long one document may take."""
        return self._exchange.timeout

    def __call__(self, url: str) -> dict[str, JsonValue]:
        """The JSON object at `url`. Raises: FetchError: there is none to be had."""
        try:
            status, raw = self._exchange("GET", place_of(url), _read, headers=_HEADERS)
            if status != HTTPStatus.OK:
                raise FetchError(f"{url} answered {status}; redirects are not followed")
            if len(raw) > MAX_BYTES:
                raise FetchError(f"{url} answered with more than {MAX_BYTES} bytes")
            return parse_object(raw)
        except ssl.SSLCertVerificationError as error:
            raise FetchError(f"{url} did not prove who it is (TLS): {error.verify_message}") from None
        except TimeoutError:
            raise FetchError(f"{url} did not answer within {self.timeout.total_seconds():g} s") from None
        except (OSError, HTTPException) as error:
            raise FetchError(f"{url} did not answer ({type(error).__name__})") from None
        except ValueError as error:
            raise FetchError(f"{url}: {error}") from None


def _read(response: HTTPResponse) -> tuple[int, bytes]:
    return response.status, response.read(MAX_BYTES + 1)
