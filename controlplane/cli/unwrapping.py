"""Open a wrapping token at Vault, as its settings say, or give the grant up."""

import ssl

from controlplane.model.errors import ControlPlaneError
from controlplane.sdk.client import Shorthold
from controlplane.sdk.surroundings import VaultAt

Vault = tuple[VaultAt, ssl.SSLContext | None]


class NotUnwrappedError(ControlPlaneError):
    """A grant was made, but its wrapping token could not be opened at Vault: nobody has its credentials."""

    code, exit_status = "not-unwrapped", 2
    hint = (
        "See that BAO_ADDR or vault.addr and its TLS settings are right from here, and ask anew. If Vault says that "
        "the wrapping token is not valid and nobody of yours opened it, tell your incident responder."
    )


def vault_settings() -> Vault:
    """Where wrapping tokens are opened, and whom to trust there.

    Raises: ConfigurationError: a certificate or key of the settings cannot be read.
    """
    from controlplane.settings import load

    vault = load().vault
    at = VaultAt(
        addr=vault.addr,
        namespace=vault.namespace,
        cacert=vault.cacert,
        client_cert=vault.client_cert,
        client_key=vault.client_key,
        skip_verify=vault.skip_verify,
    )
    return at, at.tls()


def unwrapped(client: Shorthold, at: Vault, id: str, token: str) -> dict[str, dict[str, str]]:
    """The credentials by scope. Raises: NotUnwrappedError: Vault opened nothing; the grant was finished as failed."""
    from controlplane.model.secret import Secret

    vault, tls = at
    try:
        opened = client.unwrap(vault.addr, Secret(token), namespace=vault.namespace, tls=tls)
    except ControlPlaneError as error:
        raise NotUnwrappedError(
            f"Vault at {vault.addr} did not open the credentials of {id}: {error.detail}; {_given_up(client, id)}"
        ) from None
    return {scope: {name: value.reveal() for name, value in fields.items()} for scope, fields in opened.items()}


def _given_up(client: Shorthold, id: str) -> str:
    """End a grant that nobody can use any more, and say how that went."""
    try:
        client.finish(id, outcome="failed")
    except ControlPlaneError as error:
        return f"and it could not be finished ({error.detail}): run `shorthold grant finish {id} --outcome failed`"
    return "it was finished as failed"
