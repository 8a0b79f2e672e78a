"""(a) Plain Vault as its documentation shows it: an agent logs in with its own token, reads, revokes itself.

Source: OpenBao docs, "PostgreSQL database secrets engine", "Setup"; "JWT/OIDC auth method", "JWT authentication".
The role and the connection have the documented settings; only names are ours, and USAGE on the schema, which the
documentation's schema `public` gives to everybody.
"""

from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import sql

from benchmarks.target import UserWatch
from benchmarks.way import Held
from benchmarks.wire import Wire, token
from controlplane.dev import loopback
from controlplane.dev.issuer import AUDIENCE
from controlplane.dev.orders import DATABASE
from controlplane.dev.stack import Stack
from controlplane.model.secret import Secret

MOUNT: Final = "shorthold-plain"  # a name at which the operator of the embedded server may put a mount
CONNECTION: Final = "plain"
ROLE: Final = "plain-orders"
MANAGER: Final = "plain_manager"

_CREATION: Final = """\
CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
GRANT USAGE ON SCHEMA sales TO "{{name}}";
GRANT SELECT ON ALL TABLES IN SCHEMA sales TO "{{name}}";"""

_MANAGER: Final = (
    "CREATE ROLE plain_manager LOGIN CREATEROLE",
    "GRANT USAGE ON SCHEMA sales TO plain_manager WITH GRANT OPTION",
    "GRANT ALL ON ALL TABLES IN SCHEMA sales TO plain_manager WITH GRANT OPTION",
    "GRANT USAGE ON SCHEMA public TO plain_manager",  # the default revocation looks there, too
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """What is set up once: a JWT mount that trusts the agents' issuer, a connection, a role and a policy."""

    stack: Stack
    subject: str
    token: Secret
    name: str = "plain"

    def set_up(self) -> None:
        """Make it all in the stack's servers."""
        password = _manager(self.stack)
        path, url = f"auth/{MOUNT}", f"postgresql://{{{{username}}}}:{{{{password}}}}@{loopback.HOST}"
        vault = self.stack.openbao.operator_client()
        try:
            vault.write(f"sys/{path}", {"type": "jwt"})
            vault.write(f"{path}/config", {"oidc_discovery_url": self.stack.issuer.url})
            policy = f'path "database/creds/{ROLE}" {{\n  capabilities = ["read"]\n}}'
            vault.write("sys/policies/acl/plain", {"policy": policy})
            vault.write(
                f"{path}/role/{ROLE}",
                {
                    "role_type": "jwt",
                    "bound_subject": self.subject,
                    "bound_audiences": [AUDIENCE],
                    "user_claim": "sub",
                    "policies": ["plain"],
                    "ttl": "1h",
                },
            )
            vault.write(
                f"database/config/{CONNECTION}",
                {
                    "plugin_name": "postgresql-database-plugin",
                    "allowed_roles": [ROLE],
                    "connection_url": f"{url}:{self.stack.postgres.port}/{DATABASE}?sslmode=disable",
                    "username": MANAGER,
                    "password": password.reveal(),
                    "password_authentication": "scram-sha-256",
                },
            )
            vault.write(
                f"database/roles/{ROLE}",
                {"db_name": CONNECTION, "creation_statements": [_CREATION], "default_ttl": "1h", "max_ttl": "24h"},
            )
        finally:
            vault.close()

    def agent(self) -> "PlainAgent":
        """See Way."""
        return PlainAgent(Wire(self.stack.vault_addr), self.token)

    def watch(self) -> UserWatch:
        """See Way."""
        return UserWatch(self.stack.postgres.owner)


class PlainAgent:
    """Fits Agent: login, read, revoke oneself."""

    def __init__(self, vault: Wire, token: Secret) -> None:
        self._vault, self._token = vault, token

    def prepare(self, grants: int) -> None:
        """See Agent. Nothing is needed."""

    def ask(self) -> Held:
        """See Agent."""
        login = {"role": ROLE, "jwt": self._token.reveal()}
        own = self._vault.call("POST", f"/v1/auth/{MOUNT}/login", login)["auth"]["client_token"]
        made = self._vault.call("GET", f"/v1/database/creds/{ROLE}", headers=token(own))["data"]
        return Held(made["username"], own, made["password"])

    def finish(self, held: Held) -> None:
        """See Agent."""
        self._vault.call("POST", "/v1/auth/token/revoke-self", headers=token(held.handle), status=204)

    def close(self) -> None:
        """See Agent."""
        self._vault.close()


def _manager(stack: Stack) -> Secret:
    """The user by which plain Vault works: the same rights on the schema, and no other setting changed."""
    password = Secret("plain-manager-of-a-benchmark")
    with psycopg.connect(stack.postgres.owner.reveal(), dbname=DATABASE) as owner:
        for statement in _MANAGER:
            owner.execute(statement)
        owner.execute(sql.SQL("ALTER ROLE plain_manager PASSWORD {}").format(sql.Literal(password.reveal())))
    return password
