"""How bytes travel to Vault: hvac's API on an adapter of our own over urllib3, which does only what it was told.

hvac on `requests` follows a redirect to another host and sends the token there, obeys `HTTP_PROXY`, reads `.netrc`
and `VAULT_TOKEN`, and tidies `..` in paths. This adapter does none of it, and takes a third of the CPU.
"""

import json
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

from hvac.adapters import Adapter
from pydantic import JsonValue
from typing_extensions import override
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.exceptions import TimeoutError as TookTooLong
from urllib3.util import Url, parse_url

from controlplane import __version__
from controlplane.model.canonical import JsonObject
from controlplane.model.errors import ConfigurationError, VaultUnavailableError
from controlplane.model.secret import Secret
from controlplane.vault.deadline import TimedHTTPConnection, TimedHTTPSConnection
from controlplane.vault.index import Index
from controlplane.vault.refusal import Refusal, cleaned, texts_of, unavailable

MAX_ANSWER: Final = 32 * 1024 * 1024
"""Bytes; the longest honest answer is a list of 100 000 leases, about 10 MiB."""

_CONNECTIONS: Final = 32
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_.:=@-]+", re.ASCII)
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,8192}", re.ASCII)
_UNKNOWN: Final = {408, 412, 429, 472, 473}
"""4xx that say nothing about the request itself: ask again. Source: OpenBao docs, api, "HTTP status codes"."""

TokenSource = Callable[[], Secret]
"""Gives the Vault token to use now."""

Answer = dict[str, JsonValue]
"""Vault's whole answer: `data`, `lease_id`, `lease_duration`, `auth`, `wrap_info`, `warnings` …"""


@dataclass(frozen=True, slots=True)
class Server:
    """One Vault or OpenBao server. `timeout` covers one call from connecting to the last byte of the answer."""

    addr: str
    _: KW_ONLY
    namespace: str | None = None
    cacert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    skip_verify: bool = False
    timeout: timedelta = timedelta(seconds=10)


if TYPE_CHECKING:
    _Adapter = Adapter[Answer | None]
else:
    _Adapter = Adapter  # generic in its stubs only


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = cast("Any", TimedHTTPConnection)


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = cast("Any", TimedHTTPSConnection)


@runtime_checkable
class Renewable(Protocol):
    """A token source that can log in again."""

    def __call__(self) -> Secret:
        """The token to use now."""
        ...

    def invalidate(self, stale: Secret) -> None:
        """Never give `stale` again."""
        ...


class Transport:
    """A pool of connections to one server. Thread-safe; nothing is ever sent twice.

    Raises: ConfigurationError: the address or a certificate file is no good.
    """

    def __init__(self, server: Server) -> None:
        url = _address(server.addr)
        self.server = server
        self.observe: Callable[[str, int | None, float], None] | None = None
        """Told of every call: its path, Vault's status (None: no answer) and its seconds."""
        if url.scheme == "https":
            self._pool: HTTPConnectionPool = _HTTPSPool(
                cast("str", url.host), url.port, maxsize=_CONNECTIONS, block=False, ssl_context=_tls(server)
            )
        else:
            self._pool = _HTTPPool(cast("str", url.host), url.port, maxsize=_CONNECTIONS, block=False)
        self._headers = {"X-Vault-Request": "true", "User-Agent": f"shorthold/{__version__}"}
        self.index = Index()
        if server.namespace:
            checked_path(server.namespace.strip("/"))
            self._headers["X-Vault-Namespace"] = server.namespace

    def send(
        self,
        method: str,
        path: str,
        *,
        token: Secret | None,
        body: JsonObject | None = None,
        wrap_ttl: str | None = None,
        timeout: timedelta | None = None,
    ) -> Answer | None:
        """One request to `path` (without `/v1/`); None where Vault answers with an empty body.

        Raises: Refusal: 4xx, nothing was done. VaultUnavailableError: the outcome is unknown.
        """
        headers = {**self._headers, **self.index.headers()}
        content = None
        if token is not None:
            headers["X-Vault-Token"] = _printable(token)
        if wrap_ttl is not None:
            headers["X-Vault-Wrap-TTL"] = wrap_ttl
        if body is not None:
            headers["Content-Type"] = f"application/{'merge-patch+json' if method == 'PATCH' else 'json'}"
            content = json.dumps(body, separators=(",", ":")).encode()
        span = (timeout or self.server.timeout).total_seconds()
        status, raw = self._timed(method, checked_path(path), headers, content, span)
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            return _parsed(method, path, raw)
        texts = tuple(cleaned(text, hide=(token, body)) for text in texts_of(raw))
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _UNKNOWN:
            raise Refusal(method, path, status, texts)
        raise unavailable(method, path, status, texts)

    def date(self, path: str, *, timeout: timedelta) -> str | None:
        """The `Date` of the answer to a GET of `path` without a token, whatever it says; None where it has none.

        Raises: VaultUnavailableError: there was no answer.
        """
        return self._exchange("GET", checked_path(path), self._headers, None, timeout.total_seconds())[2]

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def _timed(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | None, span: float
    ) -> tuple[int, bytes]:
        if self.observe is None:
            return self._exchange(method, path, headers, content, span)[:2]
        begun, seen = time.monotonic(), None
        try:
            seen, raw, _ = self._exchange(method, path, headers, content, span)
            return seen, raw
        finally:
            self.observe(path, seen, time.monotonic() - begun)

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | None, span: float
    ) -> tuple[int, bytes, str | None]:
        where = f"{method} {path}"
        try:
            response = self._pool.urlopen(
                method,
                f"/v1/{path}",
                body=content,
                headers=headers,
                retries=False,
                redirect=False,
                timeout=Timeout(total=span),
                preload_content=False,
                decode_content=False,
            )
            try:
                raw = b""
                while len(raw) <= MAX_ANSWER and (more := response.read(MAX_ANSWER + 1 - len(raw))):
                    raw += more  # one round in practice; only an empty read tells a whole answer from a cut one
            finally:
                if response.closed:  # read to its end: the connection may serve the next call
                    response.release_conn()
                else:
                    response.close()
        except SSLError:
            raise VaultUnavailableError(
                f"{where}: {self.server.addr} did not prove who it is (TLS); check vault.addr and vault.cacert"
            ) from None
        except (ConnectTimeoutError, NewConnectionError):
            raise VaultUnavailableError(f"{where}: Vault is down: {self.server.addr} takes no connection") from None
        except TookTooLong:
            raise VaultUnavailableError(
                f"{where}: Vault is slow: no whole answer within {span:g} s; what was asked may still happen"
            ) from None
        except (HTTPError, OSError) as error:
            raise VaultUnavailableError(
                f"{where}: the connection to Vault broke ({type(error).__name__}); what was asked may have happened"
            ) from None
        self.index.saw(response.headers.get("X-Vault-Index"))
        if len(raw) > MAX_ANSWER:
            raise VaultUnavailableError(f"{where}: the answer is longer than {MAX_ANSWER} bytes and was not read")
        return response.status, raw, response.headers.get("Date")


class VaultAdapter(_Adapter):
    """What hvac's API classes speak through: one transport, one source of tokens. Cheap to make.

    Answers are parsed objects, or None where Vault answers with an empty body; errors are ours, never hvac's.
    """

    def __init__(self, transport: Transport, token: TokenSource | None, *, timeout: timedelta | None = None) -> None:
        # The base class would make a `requests` session; nothing of it is used.
        self.transport = transport
        self._token = token
        self._timeout = timeout

    @override
    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,
        **kwargs: Any,
    ) -> Answer | None:
        """Send what an API class of hvac asks for.

        A 403 under a token that can be renewed logs in once more and asks once more: Vault did nothing.
        """
        del raise_exception
        body, wrap_ttl = kwargs.pop("json", None), kwargs.pop("wrap_ttl", None)
        if any(kwargs.values()):
            raise TypeError(f"not supported by this adapter: {', '.join(kwargs)}")
        wrap_ttl = wrap_ttl or (headers or {}).get("X-Vault-Wrap-TTL")
        path = url.removeprefix("/").removeprefix("v1/")
        token = self._token() if self._token else None

        def send(token: Secret | None) -> Answer | None:
            return self.transport.send(
                method.upper(), path, token=token, body=body, wrap_ttl=wrap_ttl, timeout=self._timeout
            )

        try:
            return send(token)
        except Refusal as refusal:
            denied = refusal.answered == HTTPStatus.FORBIDDEN and refusal.says("permission denied")
            if not denied or token is None or not isinstance(self._token, Renewable):
                raise
            self._token.invalidate(token)
            fresh = self._token()
            if fresh == token:
                raise
        return send(fresh)

    @override
    def get_login_token(self, response: object) -> str:
        raise NotImplementedError("logins hand their answer back; no adapter ever keeps a token")

    @override
    def close(self) -> None:
        self.transport.close()


def checked_path(path: str) -> str:
    """`path` itself, where it is one that no server or proxy can read as another.

    Raises: ConfigurationError: it has an empty or dotted segment, an escape, a query or any rare character.
    """
    if all(_SEGMENT.fullmatch(part) and part.strip(".") for part in path.split("/")):
        return path
    raise ConfigurationError(f"{path[:200]!r} is no path that is ever sent to Vault")


def _address(addr: str) -> Url:
    """The parts of `http(s)://host[:port]`."""
    try:
        url = parse_url(addr)
    except HTTPError:
        raise ConfigurationError("vault.addr is not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host or url.auth or url.query or url.fragment:
        raise ConfigurationError("vault.addr must be http://host:port or https://host:port")
    if url.path not in {None, "", "/"}:
        raise ConfigurationError("vault.addr must have no path: it ends with the port")
    return url


def _tls(server: Server) -> ssl.SSLContext:
    # Not create_default_context(): that one writes session keys to wherever SSLKEYLOGFILE points.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if server.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif server.cacert:
            context.load_verify_locations(cafile=server.cacert)
        else:
            context.load_default_certs()
        if server.client_cert:
            context.load_cert_chain(server.client_cert, server.client_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"a certificate or key file for Vault cannot be used: {error}") from None
    return context


def _printable(token: Secret) -> str:
    """The token, unless it could end the header early; the library's own error would print it."""
    value = token.reveal()
    if not _TOKEN.fullmatch(value):
        raise ConfigurationError("the Vault token holds blanks or control characters, or is empty")
    return value


def _parsed(method: str, path: str, raw: bytes) -> Answer | None:
    if not raw:
        return None
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise VaultUnavailableError(f"{method} {path}: the answer is not what Vault speaks; is there a proxy between?")
    return cast("Answer", answer)
