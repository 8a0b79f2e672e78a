"""Every setting, and the only reader of the environment. Flag > environment > file > default."""

import os
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from typing_extensions import override

from controlplane.issuers.trust.options import IssuerOptions, by_kind
from controlplane.model.duration import Duration
from controlplane.model.entitlement import Mount, Name
from controlplane.model.errors import ConfigurationError
from controlplane.model.plan import MAX_PREFIX, Layout
from controlplane.model.secret import Secret

CONFIG_FILE = "shorthold.toml"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ApiSettings(_Section):
    """Where the HTTP door listens."""

    host: str = "127.0.0.1"
    port: int = Field(default=8700, ge=0, le=65535)


class StoreSettings(_Section):
    """Where grants and the audit chain are kept, as an SQLAlchemy URL without a password."""

    url: str = "sqlite:///shorthold.db"


class KeysSettings(_Section):
    """The directory (0700) with the task signing key and the audit key, each 0600."""

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
    timeout: Duration = timedelta(seconds=10)
    max_request_duration: Duration = timedelta(seconds=90)
    """The server's own limit; an effect cannot appear later than this after its request."""
    prefix: Annotated[str, Field(pattern=rf"^[a-z][a-z0-9]{{0,{MAX_PREFIX - 1}}}$")] = "sh"
    auth_mount: Mount = "shorthold"
    audience: str = "shorthold-tasks"
    mounts: dict[Name, Mount] = {"database": "database", "pki": "pki"}
    broker: VaultIdentity | None = None
    sync: VaultIdentity | None = None

    @property
    def layout(self) -> Layout:
        """Prefix, mounts and audience as the verbs need them."""
        return Layout(prefix=self.prefix, auth_mount=self.auth_mount, audience=self.audience, mounts=dict(self.mounts))


IssuerSettings = Annotated[SerializeAsAny[IssuerOptions], BeforeValidator(by_kind)]
"""One party whose tokens are believed, with the options of its kind: a file in `issuers/`."""


class TargetSettings(_Section):
    """Where the prober of a connection asks."""

    kind: Literal["postgresql"] = "postgresql"
    host: str = "127.0.0.1"
    port: int = Field(default=5432, ge=1, le=65535)
    database: str
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"


class AccessRule(_Section):
    """Whoever has these claims from this issuer has these roles."""

    issuer: Name
    subject: str | None = None
    claims: dict[str, str] = {}
    roles: tuple[Literal["approver", "responder", "platform", "auditor"], ...]


class WorkerSettings(_Section):
    """How the worker ticks."""

    tick: Duration = timedelta(seconds=1)
    threads: int = Field(default=4, ge=1, le=64)


class Settings(BaseSettings):
    """All of it. Environment names are `SHORTHOLD_` and the path with `__`: `SHORTHOLD_API__PORT`."""

    model_config = SettingsConfigDict(env_prefix="SHORTHOLD_", env_nested_delimiter="__", extra="forbid", frozen=True)

    api: ApiSettings = ApiSettings()
    store: StoreSettings = StoreSettings()
    keys: KeysSettings = KeysSettings()
    vault: VaultSettings = VaultSettings()
    issuers: tuple[IssuerSettings, ...] = ()
    targets: dict[str, TargetSettings] = {}
    roles: Path = Path("roles")
    access: tuple[AccessRule, ...] = ()
    worker: WorkerSettings = WorkerSettings()

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


def config_file() -> Path:
    """The configuration file: `SHORTHOLD_CONFIG`, or `shorthold.toml` here. It need not exist."""
    return Path(os.environ.get("SHORTHOLD_CONFIG", CONFIG_FILE))


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
    value = os.environ.get("SHORTHOLD_BAO_BIN")
    return Path(value) if value else None


def _server(name: str) -> str | None:
    return os.environ.get(f"BAO_{name}") or os.environ.get(f"VAULT_{name}") or None


def load(**flags: Any) -> Settings:
    """All settings; relative paths in them are relative to the working directory.

    Raises: ConfigurationError: every setting that is wrong, by name, without its value.
    """
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise ConfigurationError(f"{config_file()} or the environment: {wrong}") from None
    except (OSError, TOMLDecodeError) as error:
        raise ConfigurationError(f"{config_file()} cannot be read: {error}") from None
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """How the command line reaches a control plane, and as whom."""

    addr: str
    token: Secret | None


def caller(addr: str | None = None, token_file: Path | None = None) -> Caller:
    """`SHORTHOLD_ADDR`, and `SHORTHOLD_TOKEN_FILE` (read anew at every call) or `SHORTHOLD_TOKEN`.

    Raises: ConfigurationError: the token file cannot be read.
    """
    named = token_file or (Path(value) if (value := os.environ.get("SHORTHOLD_TOKEN_FILE")) else None)
    token = os.environ.get("SHORTHOLD_TOKEN")
    if named is not None:
        try:
            token = named.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigurationError(f"the token file cannot be read: {error}") from None
    return Caller(
        addr=addr or os.environ.get("SHORTHOLD_ADDR", "http://127.0.0.1:8700"),
        token=Secret(token) if token else None,
    )
