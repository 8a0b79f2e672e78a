"""The demo's secrets engines: the database connection `orders` and a certificate authority."""

from typing import Final

from controlplane.dev.orders import DATABASE, MANAGER
from controlplane.dev.outside import Target
from controlplane.model.canonical import JsonValue
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret
from controlplane.vault.client import VaultClient, part
from controlplane.vault.prober import POSTGRESQL

CONNECTION: Final = "orders"
AUTHORITY: Final = "Shorthold dev root"

# Nothing of a token's display name: a subject chosen by others must not become part of a statement.
USERNAME: Final = '{{ printf "v-%s-%s-%s" (.RoleName | truncate 24) (random 20) (unix_time) | truncate 63 }}'
_TEN_YEARS: Final = "87600h"


def database_connection(client: VaultClient, layout: Layout, target: Target, password: Secret, *, anew: bool) -> bool:
    """Configure the connection `orders`, unless it stands as it should. Whether it had to be written.

    With `anew` it is written in any case, because the manager's password has changed.
    Raises: VaultRefusedError (also where OpenBao cannot log in to the target), VaultUnavailableError.
    """
    path = f"{layout.mounts['database']}/config/{CONNECTION}"
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{target.host}:{target.port}/{DATABASE}?sslmode={target.sslmode}"
    found = client.read(path)
    if found is not None and not anew:
        details = part(found, "data").get("connection_details")
        if isinstance(details, dict) and details.get("connection_url") == url:
            return False
    client.write(
        path,
        {
            "plugin_name": POSTGRESQL,
            "connection_url": url,
            "username": MANAGER,
            "password": password.reveal(),
            "allowed_roles": [f"{layout.prefix}-*"],
            "username_template": USERNAME,
            # PostgreSQL hashes, with the manager's scram_iterations: half the time of a credential whose password
            # the engine stretches itself ("scram-sha-256"). Nothing logs these statements, see orders.py.
            "password_authentication": "password",
            "max_open_connections": 8,
            "max_idle_connections": 8,
            "verify_connection": True,
        },
    )
    return True


def certificate_authority(client: VaultClient, layout: Layout, addr: str) -> bool:
    """Make a root inside the mount, unless there is an issuer. Whether one was made. Its key never leaves the server.

    Raises: VaultRefusedError, VaultUnavailableError.
    """
    mount = layout.mounts["pki"]
    urls: dict[str, list[JsonValue]] = {
        "issuing_certificates": [f"{addr}/v1/{mount}/ca"],
        "crl_distribution_points": [f"{addr}/v1/{mount}/crl"],
    }
    found = client.read(f"{mount}/config/urls")
    if found is None or any(part(found, "data").get(name) != wanted for name, wanted in urls.items()):
        client.write(f"{mount}/config/urls", dict(urls))  # the server's port may have changed
    if client.list(f"{mount}/issuers"):
        return False
    client.write(f"{mount}/config/crl", {"expiry": "72h", "auto_rebuild": False})
    client.write(
        f"{mount}/root/generate/internal",
        {
            "common_name": AUTHORITY,
            "issuer_name": "shorthold-dev",
            "key_type": "ec",
            "key_bits": 256,
            "ttl": _TEN_YEARS,
        },
    )
    return True
