"""Static secrets are replaced by the identity `rotate`, which may change them and read none."""

import secrets
import string
from typing import Final

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import VaultUnavailableError
from controlplane.model.rotation import Rotation
from controlplane.vault.client import VaultClient, part

_LETTERS: Final = string.ascii_letters + string.digits


class VaultRotator:
    """Fits `ports.Rotator`, for version 2 of the KV engine. `rotate` is a client of that identity."""

    def __init__(self, rotate: VaultClient) -> None:
        self._rotate = rotate

    def rotate(self, path: str, rotation: Rotation) -> int:
        """Patch the secret: fields that are not named stay, and nobody has to read them for that."""
        data: dict[str, JsonValue] = {field: _random(rotation.length) for field in rotation.fields}
        # Some mounts demand the version that is replaced; and of two who replace it at once, one is told no.
        before = self.version(path) or 0
        answer = self._rotate.patch(path, {"options": {"cas": before}, "data": data})
        version = part(answer, "data").get("version")
        if not isinstance(version, int):
            raise VaultUnavailableError("Vault's answer holds no version")
        return version

    def version(self, path: str) -> int | None:
        """By its metadata, which hold no secret."""
        mount, _, name = path.partition("/data/")
        answer = self._rotate.read(f"{mount}/metadata/{name}")
        if answer is None:
            return None
        newest = part(answer, "data").get("current_version")
        if not isinstance(newest, int):
            raise VaultUnavailableError("Vault's answer holds no current version")
        return newest


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
