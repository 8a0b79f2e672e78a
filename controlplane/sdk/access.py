"""What an agent holds while it works: credentials by scope, which refuse once the work is over."""

from collections.abc import Iterator, Mapping
from typing import Final, Never, TypeVar

from controlplane.model.errors import ControlPlaneError
from controlplane.sdk.calls import Json
from controlplane.sdk.exchanges import Opened
from controlplane.sdk.redaction import Redactor
from controlplane.sdk.refusals import OverError

T = TypeVar("T")
_PUBLIC: Final = frozenset(
    {
        "username",
        "dn",
        "principals",
        "namespace",
        "vhost",
        "key",
        "certificate",
        "issuing_ca",
        "ca_chain",
        "serial_number",
    }
)
"""Fields that tell who is meant, as logs do: whoever reads them opens nothing with them."""


class Credential:
    """The fields of one scope: `credential.username`, or `credential["username"]` where the name is a word of Python.

    A field is given as text, so take it where it is used and keep no copy: `psycopg.connect(user=c.username, …)`.
    Raises: OverError: the task was left, or the access has ended. It is never printed, copied or pickled.
    """

    __slots__ = ("_access", "_fields", "_scope")

    def __init__(self, access: "Access", scope: str, fields: Mapping[str, bytearray]) -> None:
        self._access = access
        self._scope = scope
        self._fields = fields

    @property
    def scope(self) -> str:
        """The scope's name."""
        return self._scope

    def __getitem__(self, name: str) -> str:
        self._access.check()
        if name not in self._fields:
            raise KeyError(f"{self._scope} has no field {name}: it has {', '.join(self._fields)}")
        return self._fields[name].decode(errors="surrogatepass")

    def __getattr__(self, name: str) -> str:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(*error.args) from None

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        """The names of its fields."""
        return iter(self._fields)

    def __repr__(self) -> str:
        return f"<Credential {self._scope}: {', '.join(self._fields)}>"

    def __reduce__(self) -> Never:
        raise TypeError("a Credential is never pickled or copied")

    def forget(self) -> None:
        """Overwrite what it holds. Copies that Python or a library made of it are beyond reach."""
        for value in self._fields.values():
            value[:] = bytes(len(value))


class Access:
    """An active grant: `access["orders"]` is the credential of a scope, `access.only` that of the one there is."""

    def __init__(self, opened: Opened) -> None:
        self.id: Final = opened.id
        """The grant's id: what the audit log knows it by."""
        self.ended: Json | None = None
        """The grant as its end left it; with `prove` it has the receipt."""
        self._grant = opened.grant
        self._over: ControlPlaneError | None = None
        self._credentials = {
            scope: Credential(
                self, scope, {name: bytearray(value.reveal(), "utf-8", "surrogatepass") for name, value in held.items()}
            )
            for scope, held in opened.credentials.items()
        }

    @property
    def task(self) -> str:
        """The task that it is for."""
        return str(self._grant["task"])

    @property
    def entitlement(self) -> str:
        """What was asked for."""
        return str(self._grant["entitlement"])

    @property
    def expires_at(self) -> str:
        """When it ended, as far as was known when it began (RFC 3339)."""
        return str(self._grant["expires_at"])

    @property
    def only(self) -> Credential:
        """The only credential. Raises: KeyError: there are several, name the scope."""
        if len(self._credentials) != 1:
            raise KeyError(f"{self.entitlement} has several scopes: {', '.join(self._credentials)}")
        return next(iter(self._credentials.values()))

    def __getitem__(self, scope: str) -> Credential:
        self.check()
        if scope not in self._credentials:
            raise KeyError(f"{self.entitlement} has no scope {scope}: it has {', '.join(self._credentials)}")
        return self._credentials[scope]

    def __iter__(self) -> Iterator[str]:
        """The names of its scopes."""
        return iter(self._credentials)

    def __repr__(self) -> str:
        return f"<Access {self.id} to {self.entitlement} for {self.task}{', over' if self._over else ''}>"

    def check(self) -> None:
        """Raises: OverError: the task was left, or the control plane has ended it."""
        if self._over is not None:
            raise OverError(f"the access to {self.entitlement} for {self.task} is over: {self._over.detail}")

    def end(self, why: ControlPlaneError) -> None:
        """Forget the credentials: from here on everything refuses, because of `why`."""
        if self._over is None:
            self._over = why
            for credential in self._credentials.values():
                credential.forget()

    def redacted(self, value: T) -> T:
        """`value` with every issued secret replaced in its texts, bytes, lists, tuples and dicts; the rest stays.

        Also as programs write it (escaped, quoted, base64, hex), and where it is cut up into neighbouring texts.
        """
        self.check()
        return Redactor(self._texts())(value)

    def _texts(self) -> Iterator[str]:
        for credential in self._credentials.values():
            for name in credential:
                if name in _PUBLIC:
                    continue
                text = credential[name]
                yield text
                if "\n" in text.strip():  # a key, say: its lines one by one, as an escaping or a log would cut it
                    yield from (line for line in text.splitlines() if not line.startswith("-----"))
