"""What the environment puts in the place of the embedded servers: somebody else's Vault, somebody else's PostgreSQL."""

from dataclasses import dataclass
from typing import Any

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import ValidationError

from controlplane.dev import loopback
from controlplane.dev.home import Home
from controlplane.dev.orders import DATABASE
from controlplane.model.errors import ConfigurationError, LocalServerError
from controlplane.model.secret import Secret
from controlplane.settings import VaultSettings, dev_addresses, server_environment, server_token, target_server


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the database `orders` is, as Vault and the prober reach it; `owner` is a superuser's connection string."""

    host: str
    port: int
    sslmode: str
    owner: Secret

    @property
    def url(self) -> str:
        """Where it is, without anybody's password."""
        user = conninfo_to_dict(self.owner.reveal()).get("user", "")
        return f"postgresql://{user}@{self.host}:{self.port}/{DATABASE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideVault:
    """Somebody else's server, and an operator's token for setting it up."""

    settings: VaultSettings
    token: Secret


def outside_vault(home: Home) -> OutsideVault | None:
    """The server that `BAO_ADDR` or `VAULT_ADDR` names; None where none is named, or `dev env` of any project did.

    Raises: ConfigurationError: it is named, but there is no operator's token, or a setting is wrong.
    """
    environment: dict[str, Any] = server_environment()
    addr = environment.get("addr")
    if addr is None or addr in dev_addresses() or str(addr).rstrip("/") == _own(home, "openbao"):
        return None
    token = server_token()
    if token is None:
        raise ConfigurationError(
            f"{addr} takes the place of the embedded OpenBao: BAO_TOKEN or VAULT_TOKEN must hold an operator's token "
            "for it (or unset BAO_ADDR and VAULT_ADDR)"
        )
    try:
        return OutsideVault(settings=VaultSettings(**environment), token=token)
    except ValidationError as error:
        wrong = ", ".join(".".join(str(part) for part in item["loc"]) for item in error.errors(include_input=False))
        raise ConfigurationError(f"the environment's BAO_… or VAULT_… is wrong: {wrong}") from None


def outside_target(home: Home) -> Target | None:
    """The server that `DATABASE_URL` names; None where none is named, or `dev env` of any project did.

    Raises: ConfigurationError: it is no connection string, or does not name host and user.
    """
    url = target_server()
    if url is None or url.reveal() in dev_addresses():
        return None
    try:
        parts = conninfo_to_dict(url.reveal())
        port = int(parts.get("port") or 5432)
    except (ProgrammingError, ValueError):
        raise ConfigurationError("DATABASE_URL is no PostgreSQL connection string") from None
    host, user = parts.get("host"), parts.get("user")
    if not host or not user or str(host).startswith("/"):
        raise ConfigurationError(
            "DATABASE_URL must name a user and a host that OpenBao reaches too: postgresql://…@host"
        )
    if f"http://{host}:{port}" == _own(home, "postgres"):
        return None
    return Target(host=str(host), port=port, sslmode=str(parts.get("sslmode") or "prefer"), owner=url)


def _own(home: Home, name: str) -> str | None:
    """`dev env` exports our own addresses: whoever did so still means the embedded server."""
    try:
        return f"http://{loopback.HOST}:{home.known_port(name)}" if home.exists else None
    except LocalServerError:
        return None
