"""Every setting, and the only reader of the environment. Flag > environment > file > default."""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from controlplane.engines.dialects import TargetOptions
from controlplane.engines.dialects import by_kind as by_kind_of_target
from controlplane.issuers.trust.options import IssuerOptions, by_kind
from controlplane.model.access import AccessRule, Role
from controlplane.model.duration import Duration
from controlplane.model.entitlement import Mount, Name
from controlplane.model.errors import ConfigurationError
from controlplane.model.identity import IssuerName
from controlplane.model.network import Network
from controlplane.model.plan import MAX_PREFIX, Layout
from controlplane.model.rate import Rate, parse_rate
from controlplane.model.secret import Secret
from controlplane.sinks import SinkOptions
from controlplane.sinks import by_kind as by_kind_of_sink

Read = TypeVar("Read", bound=BaseSettings)

CONFIG_FILE = "shorthold.toml"
DEV_ADDRESSES = "SHORTHOLD_DEV_ADDRESSES"
_BAO_BIN = "SHORTHOLD_BAO_BIN"
_PREFIX: Final = "SHORTHOLD_"
_TOKENS: Final = ("BAO_TOKEN", "VAULT_TOKEN")
_OTHERS: Final = ("ADDR", "BAO_BIN", "CONFIG", "DEV_ADDRESSES", "TOKEN", "TOKEN_COMMAND", "TOKEN_FILE")
"""Our variables that are no settings: what the command line and `dev` read."""
_VISIBLE = re.compile(r"[\x21-\x7e]+", re.ASCII)


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ApiSettings(_Section):
    """Where the HTTP door listens, and whom it believes about where a request comes from."""

    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=0, le=65535)
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of our own proxies: only what comes from there is asked for X-Forwarded-For."""
    rate: Annotated[Rate, NoDecode] = parse_rate("1200/m")
    """How often one workload may ask, in this process: its bucket holds the count and fills up in the span."""
    ending_rate: Annotated[Rate, NoDecode] = parse_rate("6000/m")
    """The same for what ends access, in a bucket of its own."""
    monitoring: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
    """Networks that `/metrics` is shown to."""


class StoreSettings(_Section):
    """Where grants and the audit chain are kept, as an SQLAlchemy URL without a password."""

    url: str = "sqlite:///shorthold.db"
    spool: Path | None = None
    """The file for events of ends that the store cannot take; beside a SQLite store where it is not set."""


class KeysSettings(_Section):
    """The directory (0700) with the keys that sign tasks and receipts and the audit key, each 0600."""

    directory: Path = Path("keys")


class VaultIdentity(_Section):
    """How one of our identities logs in: a JWT that its own key signs, at a JWT mount that trusts only that key."""

    mount: Mount
    role: Name
    key_file: Path


class VaultSettings(_Section):
    """The server behind us, and where our objects live in it."""

    addr: str = "http://127.0.0.1:8200"
    namespace: str | None = None
    cacert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    skip_verify: bool = False
    plaintext: bool = False
    """Whether a server that is not on this machine may be spoken to over http://: tokens and credentials in clear."""
    timeout: Duration = timedelta(seconds=10)
    max_request_duration: Duration = timedelta(seconds=90)
    """The server's own limit; an effect cannot appear later than this after its request."""
    issuing_within: Duration = timedelta(seconds=30)
    """How long issuing one grant may take; the worker ends one that is still `issuing` then."""
    prefix: Annotated[str, Field(pattern=rf"^[a-z][a-z0-9]{{0,{MAX_PREFIX - 1}}}$")] = "sh"
    auth_mount: Mount = "shorthold"
    audience: str = "shorthold-tasks"
    mounts: dict[Mount, Mount] = {"database": "database", "pki": "pki"}
    broker: VaultIdentity | None = None
    sync: VaultIdentity | None = None
    param: VaultIdentity | None = None
    """Who makes roles for single grants; only where entitlements have parameters (docs/parameters.md)."""
    rotate: VaultIdentity | None = None
    """Who replaces static secrets when a grant ends; only where entitlements say `rotate` (docs/engines.md)."""
    drift: VaultIdentity | None = None

    @property
    def layout(self) -> Layout:
        """Prefix, mounts and audience as the verbs need them."""
        return Layout(prefix=self.prefix, auth_mount=self.auth_mount, audience=self.audience, mounts=dict(self.mounts))


IssuerSettings = Annotated[SerializeAsAny[IssuerOptions], BeforeValidator(by_kind)]
"""One party whose tokens are believed, with the options of its kind: a file in `issuers/`."""


SinkSettings = Annotated[SerializeAsAny[SinkOptions], BeforeValidator(by_kind_of_sink)]
"""Somebody who is told of audit events, with the options of its kind: a file in `sinks/`."""


TargetSettings = Annotated[SerializeAsAny[TargetOptions], BeforeValidator(by_kind_of_target)]
"""Where the prober of a connection asks, with the options of its dialect: a file in `engines/dialects/`."""


class AccessSettings(_Section):
    """Whoever has this subject and these claims from this issuer has these roles, and the groups that a claim lists."""

    issuer: Name
    subject: str | None = None
    claims: dict[str, str] = {}
    roles: tuple[Role, ...] = Field(min_length=1)
    groups: str | None = None
    """The path of the claim that lists a person's groups: `approval.from` names them as `group:<name>`."""

    @model_validator(mode="after")
    def _narrow(self) -> "AccessSettings":
        if self.subject is None and not self.claims:
            raise ValueError("a rule needs a subject or claims: this one would give its roles to everybody")
        return self

    @property
    def rule(self) -> AccessRule:
        """The rule as the verbs need it."""
        return AccessRule(
            issuer=IssuerName(self.issuer),
            roles=frozenset(self.roles),
            subject=self.subject,
            claims=dict(self.claims),
            groups=self.groups,
        )


class WorkerSettings(_Section):
    """How the worker ticks."""

    tick: Duration = timedelta(seconds=1)
    threads: int = Field(default=4, ge=1, le=64)
    hold: Duration = timedelta(seconds=60)
    """How long a claimed grant is left to its claimer; a worker that died is taken over after this."""
    reconcile: Duration | Literal["off"] = timedelta(seconds=10)
    """The pause between two comparisons of Vault with the store. `off` only where another control plane, with a store
    of its own, uses the same prefix and mounts: then nothing finds orphans or a restored store."""


class DriftSettings(_Section):
    """Whether the worker looks for drift, and what of it is accepted."""

    every: Duration | Literal["off"] = "off"
    """The pause between two looks, by one replica at a time, as the identity `vault.drift`."""
    known: frozenset[str] = frozenset()
    """Paths in Vault that somebody has looked at: nothing is told of them."""


class McpSettings(_Section):
    """The tools of a model: `shorthold mcp` (docs/mcp.md)."""

    resource: str | None = None
    """The address that clients of `shorthold mcp --http` have: what their tokens must be for (`aud`), and no other."""
    host: str = "127.0.0.1"
    port: int = Field(default=8710, ge=0, le=65535)
    authorization_servers: tuple[str, ...] = ()
    """Where clients are sent for a token; the issuers' addresses where it is empty."""
    page: str | None = None
    """Where people agree, with `{id}` for the grant: shown to the person in front of a client that can open pages."""

    @field_validator("resource", "page")
    @classmethod
    def _encrypted(cls, address: str | None) -> str | None:
        if address is None:
            return None
        url = urlsplit(address)
        if url.scheme not in {"http", "https"} or not url.hostname or in_clear(address) or "#" in address:
            raise ValueError("it is an https:// address without a fragment, or http:// on this machine")
        return address


class Settings(BaseSettings):
    """All of it. Environment names are `SHORTHOLD_` and the path with `__`: `SHORTHOLD_API__PORT`."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)

    api: ApiSettings = ApiSettings()
    store: StoreSettings = StoreSettings()
    keys: KeysSettings = KeysSettings()
    vault: VaultSettings = VaultSettings()
    issuers: tuple[IssuerSettings, ...] = ()
    targets: dict[str, TargetSettings] = {}
    roles: Path = Path("roles")
    policies: Path | None = None
    """The directory of the Cedar policies; `policies` beside the entitlements where it is not set."""
    environment: Name | None = None
    """The environment that this control plane grants for: what `context.environments` is held against."""
    access: tuple[AccessSettings, ...] = ()
    sinks: tuple[SinkSettings, ...] = ()
    worker: WorkerSettings = WorkerSettings()
    drift: DriftSettings = DriftSettings()
    mcp: McpSettings = McpSettings()

    @model_validator(mode="after")
    def _encrypted(self) -> "Settings":
        _see_encrypted(self.vault)
        return self

    @model_validator(mode="after")
    def _sinks_by_name(self) -> "Settings":
        if len({sink.name for sink in self.sinks}) < len(self.sinks):
            raise ValueError("sinks: every sink needs a name of its own")
        return self

    @property
    def spool(self) -> Path:
        """The file of what the store cannot take."""
        if self.store.spool is not None:
            return self.store.spool
        kind, _, file = self.store.url.partition(":///")
        return Path(f"{file}.spool") if kind == "sqlite" else Path("shorthold.spool")

    def for_mcp(self) -> "Settings":
        """As they are for the tools over HTTP, whose tokens are for `mcp.resource` and for nothing else (RFC 8707).

        Raises: ConfigurationError: it is not set, or no issuer is.
        """
        if self.mcp.resource is None or not self.issuers:
            raise ConfigurationError("mcp.resource, the address that clients will have, and issuers: set both")
        only = {"audiences": (self.mcp.resource,)}
        return self.model_copy(update={"issuers": tuple(each.model_copy(update=only) for each in self.issuers)})

    @property
    def policies_directory(self) -> Path:
        """Where the policies stand."""
        return self.policies or self.roles / "policies"

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then our environment, then the server's own names, then the file."""
        return (
            init_settings,
            env_settings,
            InitSettingsSource(settings_cls, {"vault": server_environment()} if server_environment() else {}),
            TomlConfigSettingsSource(settings_cls, config_file()),
        )


class _OnlyVault(BaseSettings):
    """`vault` alone: nothing else in the file or the environment has to be right, or known."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_nested_delimiter="__", extra="ignore", frozen=True)

    vault: VaultSettings = VaultSettings()

    @model_validator(mode="after")
    def _encrypted(self) -> "_OnlyVault":
        _see_encrypted(self.vault)
        return self

    @classmethod
    @override
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """As all settings have them."""
        return Settings.settings_customise_sources(settings_cls, *sources, **named)


def _see_encrypted(vault: VaultSettings) -> None:
    if not vault.plaintext and in_clear(vault.addr):
        raise ValueError(
            "vault.addr is http:// and not on this machine, so tokens and credentials would travel in clear: "
            "use https://, or say vault.plaintext = true where the network itself is trusted"
        )


def config_file() -> Path:
    """The configuration file: `SHORTHOLD_CONFIG`, which must exist, or `shorthold.toml` here, which need not.

    Raises: ConfigurationError: it is named and is not there, or it is no file.
    """
    named = os.environ.get("SHORTHOLD_CONFIG")
    path = Path(named or CONFIG_FILE)
    if not path.is_file() and (named or path.exists()):
        what = "is not a file" if path.exists() else "does not exist"
        raise ConfigurationError(f"{'SHORTHOLD_CONFIG names ' if named else ''}{path}, which {what}")
    return path


def server_environment() -> dict[str, Any]:
    """What the environment says of the server behind us: `BAO_*` first, then `VAULT_*`, as its client does."""
    names = {
        "ADDR": "addr",
        "NAMESPACE": "namespace",
        "CACERT": "cacert",
        "CLIENT_CERT": "client_cert",
        "CLIENT_KEY": "client_key",
        "SKIP_VERIFY": "skip_verify",
    }
    return {field: value for name, field in names.items() if (value := _server(name))}


def in_clear(addr: str) -> bool:
    """Whether what is sent to `addr` could be read on its way: plain HTTP to another machine."""
    url = urlsplit(addr)
    if url.scheme != "http":
        return False
    try:
        return url.hostname != "localhost" and not ip_address(url.hostname or "").is_loopback
    except ValueError:
        return True


def refuse_operator_token() -> None:
    """What `serve` makes sure of: it has power of its own only, and little of it.

    Raises: ConfigurationError: `BAO_TOKEN` or `VAULT_TOKEN` is set.
    """
    if given := [name for name in _TOKENS if os.environ.get(name)]:
        raise ConfigurationError(
            f"{' and '.join(given)} is set: the control plane logs in as vault.broker, and whoever takes over its "
            "process must not find an operator's token there; unset it"
        )


def server_token() -> Secret | None:
    """The operator's own Vault token, for `sync` and `vault bootstrap`; the control plane never uses it."""
    value = _server("TOKEN")
    return Secret(value) if value else None


def target_server() -> Secret | None:
    """`DATABASE_URL`: the PostgreSQL server that `dev up` uses instead of starting one; it holds a password."""
    value = os.environ.get("DATABASE_URL")
    return Secret(value) if value else None


def bao_program() -> Path | None:
    """`SHORTHOLD_BAO_BIN`: the `bao` program that `dev up` starts instead of the wheel's."""
    value = os.environ.get(_BAO_BIN)
    return Path(value) if value else None


def dev_addresses() -> frozenset[str]:
    """`SHORTHOLD_DEV_ADDRESSES`: the embedded servers that an evaluated `dev env` named, of any project, maybe gone."""
    return frozenset(os.environ.get(DEV_ADDRESSES, "").split())


def environment_with(**more: str) -> dict[str, str]:
    """This process's environment and `more`, for a process of ours that is started by it."""
    return {**os.environ, **more}


def forget_environment() -> None:
    """Take every server and setting out of this process's environment, but for `SHORTHOLD_BAO_BIN`."""
    for name in list(os.environ):
        if name == "DATABASE_URL" or (name.startswith(("BAO_", "VAULT_", "SHORTHOLD_")) and name != _BAO_BIN):
            del os.environ[name]


def _server(name: str) -> str | None:
    return os.environ.get(f"BAO_{name}") or os.environ.get(f"VAULT_{name}") or None


def load(**flags: Any) -> Settings:
    """All settings; relative paths in them are relative to the working directory.

    Raises: ConfigurationError: every setting that is wrong, by name, without its value; or a variable `SHORTHOLD_…`
    that nothing reads, for it was meant to change something.
    """
    _refuse_unknown(os.environ)
    return _read(lambda: Settings(**flags))


def load_vault() -> VaultSettings:
    """Where the server is, and our names in it: for whoever has to act while the control plane is broken.

    Raises: ConfigurationError: as `load`, but for these settings alone.
    """
    return _read(_OnlyVault).vault


def _read(make: Callable[[], Read]) -> Read:
    try:
        return make()
    except ValidationError as error:
        wrong = "; ".join(
            ": ".join([*filter(None, [".".join(str(part) for part in item["loc"])]), item["msg"]])
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ConfigurationError(f"{config_file()} or the environment: {wrong}") from None
    except SettingsError as error:  # its words name the variable or the field, never the value
        raise ConfigurationError(f"the environment: {error}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{config_file()} cannot be read: it is not UTF-8") from None
    except (OSError, TOMLDecodeError) as error:
        raise ConfigurationError(f"{config_file()} cannot be read: {error}") from None


def _refuse_unknown(names: Iterable[str]) -> None:
    known = [*(name.upper() for name in Settings.model_fields), *_OTHERS]
    for name in sorted(names):
        word = name.upper().removeprefix(_PREFIX)
        if name.upper().startswith(_PREFIX) and word.split("__", maxsplit=1)[0] not in known:
            close = get_close_matches(word, known, n=1)
            meant = f"; is {_PREFIX}{close[0]} meant?" if close else "; parts of a setting's name are joined by __"
            raise ConfigurationError(f"{name} is set, and there is no such setting{meant}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How the command line reaches a control plane, and as whom."""

    addr: str
    token: Secret | None


def caller(addr: str | None = None, token_file: Path | None = None) -> Caller:
    """`SHORTHOLD_ADDR`, and `SHORTHOLD_TOKEN_FILE` (read anew at every call) or `SHORTHOLD_TOKEN`.

    Raises: ConfigurationError: the token file cannot be read, or what is given is no token; without showing it.
    """
    named = token_file or (Path(value) if (value := os.environ.get("SHORTHOLD_TOKEN_FILE")) else None)
    if named is None:
        token = _bearer(os.environ.get("SHORTHOLD_TOKEN", ""), "SHORTHOLD_TOKEN")
    else:
        try:
            # Any byte is read: what is no token is refused below, and not by an error that quotes it.
            token = _bearer(named.read_text(encoding="latin-1"), f"the token file {named}")
        except OSError as error:
            raise ConfigurationError(f"the token file {named} cannot be read: {error.strerror}") from None
        if token is None:
            raise ConfigurationError(f"the token file {named} is empty")
    return Caller(addr=addr or os.environ.get("SHORTHOLD_ADDR", "http://127.0.0.1:8700"), token=token)


def _bearer(text: str, where: str) -> Secret | None:
    token = text.strip()
    if token and _VISIBLE.fullmatch(token) is None:
        raise ConfigurationError(f"{where} holds no token: a token has no blanks, line breaks or other special signs")
    return Secret(token) if token else None
