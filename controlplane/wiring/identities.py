"""Our identities at Vault: each has a key, logs in with it, and can do one kind of thing."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Literal

from controlplane.keys.files import load
from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret
from controlplane.ports import Clock
from controlplane.settings import Settings, VaultIdentity, VaultSettings, server_token
from controlplane.vault.client import VaultClient
from controlplane.vault.session import JwtSession
from controlplane.vault.transport import Server, TokenSource
from controlplane.world import RandomIds, SystemClock

TASK_KEY: Final = "task.pem"
"""The key that signs task JWTs, in the directory of keys."""


class Hand:
    """An identity that does one kind of thing, and can do nothing else; logged in once it is needed."""

    def __init__(self, vault: VaultSettings, identity: VaultIdentity, name: str, clock: Clock) -> None:
        self._session = session_of(vault, identity, f"vault.{name}", clock)
        self.client = VaultClient(server_of(vault), self._session)

    def close(self) -> None:
        """Close its connections."""
        self.client.close()
        self._session.close()


def hand_of(settings: Settings, name: Literal["param", "rotate"], clock: Clock) -> Hand | None:
    """None where the settings have no such identity."""
    identity = settings.vault.param if name == "param" else settings.vault.rotate
    return None if identity is None else Hand(settings.vault, identity, name, clock)


@contextmanager
def identity_client(vault: VaultSettings, identity: VaultIdentity) -> Generator[VaultClient]:
    """One of our identities at Vault, for as long as the block lasts."""
    session = session_of(vault, identity, "vault.sync", SystemClock())
    client = VaultClient(server_of(vault), session)
    try:
        yield client
    finally:
        client.close()
        session.close()


def sync_client(vault: VaultSettings) -> VaultClient:
    """The operator where the environment has a token of one, else `sync`. Raises: ConfigurationError: neither."""
    operator = server_token()
    if operator is None:
        token: TokenSource = session_of(vault, vault.sync, "vault.sync", SystemClock())
    else:
        token = always(operator)
    return VaultClient(server_of(vault), token)


def session_of(vault: VaultSettings, identity: VaultIdentity | None, name: str, clock: Clock) -> JwtSession:
    """Its logins, with its key; `name` is its place in the settings. Raises: ConfigurationError: it is not there."""
    if identity is None:
        instead = ", or BAO_TOKEN or VAULT_TOKEN an operator's token" if name == "vault.sync" else ""
        raise ConfigurationError(f"{name} is not set: it needs mount, role and key_file{instead}")
    signer = load(identity.key_file)
    return JwtSession(server_of(vault), identity.mount, identity.role, signer, clock=clock, ids=RandomIds())


def server_of(vault: VaultSettings) -> Server:
    """Where Vault is, and how it proves who it is."""
    return Server(
        vault.addr,
        namespace=vault.namespace,
        cacert=vault.cacert,
        client_cert=vault.client_cert,
        client_key=vault.client_key,
        skip_verify=vault.skip_verify,
        timeout=vault.timeout,
    )


def always(token: Secret) -> TokenSource:
    """A token that somebody gave, and nobody renews."""
    return lambda: token
