"""Vault by path: read, list, write, delete, for whatever has no method of its own in hvac."""

from datetime import timedelta
from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from controlplane.model.canonical import JsonObject
from controlplane.model.errors import VaultUnavailableError
from controlplane.vault.refusal import Refusal
from controlplane.vault.transport import Answer, Server, TokenSource, Transport, VaultAdapter

Shape = TypeVar("Shape", bound=BaseModel)


class VaultClient:
    """One identity at one server. Thread-safe; close it when done.

    Every method raises VaultRefusedError (4xx: nothing was done) or VaultUnavailableError (the outcome is unknown).
    A path is `database/roles/x`, without `/v1/`; one that could be read in two ways is a ConfigurationError.
    """

    def __init__(self, server: Server, token: TokenSource | None) -> None:
        self.transport = Transport(server)
        self.token = token
        self.adapter = VaultAdapter(self.transport, token)

    def read(self, path: str) -> Answer | None:
        """Vault's whole answer (`data`, `lease_id`, …), None where there is nothing at `path`."""
        return _unless_absent(self.adapter, "GET", path)

    def list(self, path: str) -> list[str]:
        """The keys under `path`; folders end with `/`. Empty where there is nothing."""
        answer = _unless_absent(self.adapter, "LIST", path)
        keys = part(answer, "data").get("keys") if answer else []
        if not isinstance(keys, list):
            raise VaultUnavailableError(f"LIST {path}: the answer holds no list")
        return [key for key in keys if isinstance(key, str)]

    def write(self, path: str, body: JsonObject) -> Answer | None:
        """Write `body` at `path` (PUT); None where Vault answers with an empty body."""
        return self.adapter.request("PUT", path, json=body)

    def patch(self, path: str, body: JsonObject) -> Answer | None:
        """Change at `path` what `body` names, and leave the rest; None where Vault answers with an empty body."""
        return self.adapter.request("PATCH", path, json=body)

    def delete(self, path: str) -> None:
        """Delete what is at `path`; nothing there is fine."""
        _unless_absent(self.adapter, "DELETE", path)

    def patient(self, timeout: timedelta) -> VaultAdapter:
        """The same identity with another deadline per call, for what takes its time."""
        return VaultAdapter(self.transport, self.token, timeout=timeout)

    def close(self) -> None:
        """Close the idle connections. Repeating it changes nothing."""
        self.transport.close()


def part(answer: Answer | None, name: str) -> dict[str, JsonValue]:
    """The object called `name` in an answer.

    Raises: VaultUnavailableError: it is not there, so this is not an answer that Vault gives.
    """
    value = (answer or {}).get(name)
    if not isinstance(value, dict):
        raise VaultUnavailableError(f"Vault's answer holds no {name!r}")
    return value


def understood(shape: type[Shape], answer: Answer | None, name: str | None = None) -> Shape:
    """The answer, or its part `name`, as a `shape`.

    Raises: VaultUnavailableError: it does not have that shape; the error quotes nothing, for it may hold a secret.
    """
    value = answer if name is None else part(answer, name)
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        wrong = ", ".join(sorted({str(problem["loc"][0]) for problem in error.errors() if problem["loc"]})) or "it"
        raise VaultUnavailableError(f"Vault's answer is not as expected: look at {wrong}") from None


def _unless_absent(adapter: VaultAdapter, method: str, path: str) -> Answer | None:
    """The answer, None on a 404 without a text. With a text it is no such mount or namespace: that is a refusal."""
    try:
        return adapter.request(method, path)
    except Refusal as refusal:
        if refusal.answered == HTTPStatus.NOT_FOUND and not refusal.texts:
            return None
        raise


__all__ = ["Answer", "Server", "TokenSource", "VaultClient", "part", "understood"]
