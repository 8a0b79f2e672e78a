"""Where an agent finds its control plane, Vault and its own token: the environment, read anew for each grant.

The settings' reader is pydantic and takes longer to import than a grant to be asked for; see docs/adr/0034.
"""

import os
import shlex
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret
from controlplane.sdk import identity as known
from controlplane.sdk.identity import Identity

_API: Final = "http://127.0.0.1:8700"
_OWN: Final = frozenset({"SHORTHOLD_TOKEN", "SHORTHOLD_TOKEN_FILE", "SHORTHOLD_TOKEN_COMMAND"})
_KUBECTL: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_VAULT: Final = "http://127.0.0.1:8200"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultAt:
    """Where wrapping tokens are opened, whom to trust there, and with which certificate to come."""

    addr: str = _VAULT
    namespace: str | None = None
    cacert: str | Path | None = None
    client_cert: str | Path | None = None
    client_key: str | Path | None = None
    skip_verify: bool = False

    def tls(self) -> ssl.SSLContext | None:
        """What a connection there is made with. Raises: ConfigurationError: a certificate or key cannot be read."""
        if not self.addr.startswith("https:"):
            return None
        try:
            tls = ssl.create_default_context(cafile=self.cacert)
            if self.client_cert:
                tls.load_cert_chain(self.client_cert, self.client_key)
        except OSError as error:  # an SSLError is one
            raise ConfigurationError(f"Vault's cacert, client_cert or client_key: {error.strerror or error}") from None
        if self.skip_verify:
            tls.check_hostname = False
            tls.verify_mode = ssl.CERT_NONE
        return tls


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where the control plane and Vault are, and whose token is shown."""

    identity: Identity
    addr: str = _API
    vault: VaultAt = VaultAt()


def surroundings(*, identity: Identity | None = None) -> Surroundings:
    """As the environment has it; Vault's as `shorthold.toml` has it where the environment says nothing of it.

    Raises: ConfigurationError: nothing says who the agent is, or the file cannot be read.
    """
    return Surroundings(
        identity=identity or own(os.environ),
        addr=os.environ.get("SHORTHOLD_ADDR") or _API,
        vault=_vault(os.environ),
    )


def for_child(**more: str) -> dict[str, str]:
    """The environment of a program that is handed a credential: with `more`, and without what says who we are."""
    return {**{name: value for name, value in os.environ.items() if name not in _OWN}, **more}


def runtime_directory() -> str | None:
    """XDG_RUNTIME_DIR: a directory in memory that is only this user's, where there is one."""
    return os.environ.get("XDG_RUNTIME_DIR")


def kubernetes_api_version(default: str) -> str:
    """The version of the exec protocol that the kubectl which calls us speaks, out of those that are answered alike.

    Source: Kubernetes docs, client authentication (v1), `KUBERNETES_EXEC_INFO`.
    """
    told = os.environ.get("KUBERNETES_EXEC_INFO", "")
    return next((known for known in _KUBECTL if f'"{known}"' in told), default)


def own(names: Mapping[str, str]) -> Identity:
    """The first that is there: a file, a variable, a command, GitHub Actions, Kubernetes, SPIFFE.

    Raises: ConfigurationError: none of them is.
    """
    if path := names.get("SHORTHOLD_TOKEN_FILE"):
        return known.from_file(path)
    if token := names.get("SHORTHOLD_TOKEN"):
        return known.from_text(token, "SHORTHOLD_TOKEN")
    if command := names.get("SHORTHOLD_TOKEN_COMMAND"):
        try:
            return known.from_command(*shlex.split(command))
        except ValueError:
            raise ConfigurationError("SHORTHOLD_TOKEN_COMMAND has a quote that is not closed") from None
    if (url := names.get("ACTIONS_ID_TOKEN_REQUEST_URL")) and (bearer := names.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")):
        return known.from_github(url, Secret(bearer))
    if Path(known.PROJECTED).is_file():
        return known.from_kubernetes()
    if names.get("SPIFFE_ENDPOINT_SOCKET"):
        return known.from_spiffe()
    raise ConfigurationError(
        "nothing says who you are: set SHORTHOLD_TOKEN_FILE, SHORTHOLD_TOKEN or SHORTHOLD_TOKEN_COMMAND, or run where "
        "GitHub Actions, Kubernetes or SPIFFE gives a token (docs/agents.md)"
    )


def _vault(names: Mapping[str, str]) -> VaultAt:
    """Ours, then the server's own names, as the settings have them; then the file."""
    fields = ("addr", "namespace", "cacert", "client_cert", "client_key", "skip_verify")
    said: dict[str, Any] = {}
    for field in fields:
        name = field.upper()
        places = (f"SHORTHOLD_VAULT__{name}", f"BAO_{name}", f"VAULT_{name}")
        if value := next((names[place] for place in places if names.get(place)), None):
            said[field] = value
    if "addr" not in said:
        said = {**{field: value for field, value in _file(names).items() if field in fields}, **said}
    if "skip_verify" in said:
        said["skip_verify"] = str(said["skip_verify"]).lower() in {"1", "true", "yes", "on", "t", "y"}
    return VaultAt(**said)


def _file(names: Mapping[str, str]) -> dict[str, Any]:
    path = Path(names.get("SHORTHOLD_CONFIG") or "shorthold.toml")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    import tomllib  # noqa: PLC0415 # only where the environment does not say it all

    try:
        vault: object = tomllib.loads(text).get("vault")
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    return cast("dict[str, Any]", vault) if isinstance(vault, dict) else {}
