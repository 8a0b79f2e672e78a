"""A new Vault or OpenBao server is initialised, opened and handed to a key of ours; its root token does not remain."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final

from controlplane.dev.home import write_private
from controlplane.dev.openbao import MOUNT, POLICY_FILE, ROLE
from controlplane.dev.process import until
from controlplane.dev.shipped import shipped
from controlplane.keys.files import SigningKey
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import LocalServerError, VaultRefusedError, VaultUnavailableError
from controlplane.model.secret import Secret
from controlplane.vault.client import Server, VaultClient, part
from controlplane.vault.refusal import Refusal
from controlplane.vault.session import JwtSession
from controlplane.world import RandomIds, SystemClock

_READY: Final = timedelta(minutes=2)
_LOGIN: Final[Mapping[str, JsonValue]] = {
    "role_type": "jwt",
    "user_claim": "sub",
    "bound_subject": ROLE,
    "bound_audiences": [MOUNT],
    "clock_skew_leeway": -1,
    "expiration_leeway": -1,
    "not_before_leeway": -1,
    "token_type": "service",
    "token_no_default_policy": True,
    "token_policies": [MOUNT],
    "token_ttl": "10m",
    "token_explicit_max_ttl": "10m",
}
"""The role of the bootstrap key: the same as in `vault-config/openbao.hcl`, which opens this door by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsealing:
    """One server whose unseal key lies in `directory` (0700), for trying things out on one machine.

    Whoever reads that directory can open the server: a production server has a seal that keeps its key elsewhere.
    `audit_file` is where the server writes its audit log if it has no audit device yet.
    """

    server: Server
    directory: Path
    bootstrap: SigningKey
    audit_file: Path
    say: Callable[[str], None]

    def __call__(self) -> VaultClient:
        """Initialise and unseal what has to be; then a client with the rights of the bootstrap policy.

        Repeating it changes nothing; one that was interrupted goes on.
        Raises: LocalServerError: no answer in two minutes, or sealed with a key that is not here; VaultRefusedError.
        """
        client = VaultClient(self.server, None)
        try:
            if not until(lambda: _answers(client), _READY, every=0.2):
                raise LocalServerError(f"{self.server.addr} does not answer")
            if not (client.read("sys/init") or {}).get("initialized"):
                self._initialise(client)
            self._unseal(client)
            if not until(lambda: _active(client), _READY, every=0.2):
                raise LocalServerError(f"{self.server.addr} is unsealed but does not become active")
        finally:
            client.close()
        for file, made in self._made():
            if token := made.get("root_token"):
                self._hand_over(Secret(token))
                write_private(file, json.dumps({"key": made["key"]}))
        session = JwtSession(self.server, MOUNT, ROLE, self.bootstrap, clock=SystemClock(), ids=RandomIds())
        return VaultClient(self.server, session)

    def _initialise(self, client: VaultClient) -> None:
        made = client.write("sys/init", {"secret_shares": 1, "secret_threshold": 1}) or {}
        match made:
            case {"keys_base64": [str(key)], "root_token": str(token)}:
                name = hashlib.sha256(key.encode()).hexdigest()[:16]
                write_private(self.directory / f"unseal-{name}.json", json.dumps({"key": key, "root_token": token}))
            case _:
                raise VaultUnavailableError("Vault's answer to its initialisation holds no key")
        self.say(f"Initialised {self.server.addr}; its unseal key is kept in the volume of the operator.")

    def _unseal(self, client: VaultClient) -> None:
        for _, made in self._made():
            if not _sealed(client):
                return
            try:
                client.write("sys/unseal", {"key": made["key"]})
            except VaultRefusedError:
                continue  # the key of another server: Vault's and OpenBao's lie side by side
        if _sealed(client):
            raise LocalServerError(f"{self.server.addr} is sealed, and none of the keys in {self.directory} opens it")

    def _made(self) -> Iterator[tuple[Path, dict[str, str]]]:
        for file in sorted(self.directory.glob("unseal-*.json")):
            yield file, json.loads(file.read_text(encoding="utf-8"))

    def _hand_over(self, root: Secret) -> None:
        """Let the bootstrap key in, switch the audit log on, and give the root token up."""
        client = VaultClient(self.server, lambda: root)
        try:
            if not part(client.read("sys/audit"), "data"):
                client.write("sys/audit/file", {"type": "file", "options": {"file_path": str(self.audit_file)}})
            policy = (shipped("vault-config") / POLICY_FILE).read_text(encoding="utf-8")
            client.write(f"sys/policies/acl/{MOUNT}", {"policy": policy})
            if f"{MOUNT}/" not in part(client.read("sys/auth"), "data"):
                client.write(f"sys/auth/{MOUNT}", {"type": "jwt"})
            trust: dict[str, JsonValue] = {
                "jwt_validation_pubkeys": [self.bootstrap.public_pem],
                "jwt_supported_algs": ["ES256"],
            }
            client.write(f"auth/{MOUNT}/config", trust)
            client.write(f"auth/{MOUNT}/role/{ROLE}", dict(_LOGIN))
            client.write("auth/token/revoke-self", {})
        except Refusal as refusal:
            # A root token that was given up but not yet forgotten here: the door is open, go in by it.
            if refusal.answered != HTTPStatus.FORBIDDEN:
                raise
        finally:
            client.close()
        self.say(f"Only the bootstrap key opens {self.server.addr} now; its root token is revoked.")


def _answers(client: VaultClient) -> bool:
    try:
        return client.read("sys/seal-status") is not None
    except (VaultUnavailableError, VaultRefusedError):
        return False


def _sealed(client: VaultClient) -> bool:
    return (client.read("sys/seal-status") or {}).get("sealed") is not False


def _active(client: VaultClient) -> bool:
    try:
        return (client.read("sys/health") or {}).get("sealed") is False
    except (VaultUnavailableError, VaultRefusedError):  # standby 429, sealed 503
        return False
