"""What Vault's no means, in words; never with a body that could hold a secret."""

import json
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

from controlplane.model.canonical import JsonObject
from controlplane.model.errors import VaultRefusedError, VaultUnavailableError
from controlplane.model.secret import Secret

_MAX_TEXT: Final = 300
_MAX_TEXTS: Final = 3
_UNPRINTABLE: Final = re.compile(r"[^\x21-\x7e]+")
_CONFIDENTIAL: Final = ("jwt", "token", "password", "secret_id")
_MEANS: Final = {
    412: "this node has not seen an earlier write yet",
    429: "a rate limit was reached",
    472: "this node is a standby of another cluster",
    473: "this node is a performance standby",
    502: "what stands between got no good answer from it",
    503: "it is sealed, stopping or not ready",
    504: "what stands between got no answer from it in time",
}


class Refusal(VaultRefusedError):  # noqa: N818 # the noun says it; callers catch VaultRefusedError
    """Vault's no with its status (`answered`) and its own words (`texts`), cleaned and cut."""

    def __init__(self, method: str, path: str, answered: int, texts: tuple[str, ...]) -> None:
        super().__init__(f"{method} {path}: Vault answered {answered}: {'; '.join(texts) or 'no reason given'}")
        self.method = method
        self.path = path
        self.answered = answered
        self.texts = texts

    def says(self, words: str) -> bool:
        """Whether one of Vault's texts holds `words`, in any case."""
        return any(words.lower() in text.lower() for text in self.texts)


def unavailable(method: str, path: str, status: int, texts: tuple[str, ...]) -> VaultUnavailableError:
    """The error for an answer that says nothing about the request itself."""
    where = f"{method} {path}"
    said = f": {'; '.join(texts)}" if texts else ""
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return VaultUnavailableError(
            f"{where}: Vault sends us elsewhere ({status}), which is never followed: the token would travel along. "
            "Point vault.addr at the active node or at a load balancer"
        )
    if any("sealed" in text.lower() for text in texts):
        return VaultUnavailableError(f"{where}: Vault is sealed: it does nothing until somebody unseals it")
    if any("not initialized" in text.lower() for text in texts):
        return VaultUnavailableError(f"{where}: Vault is not initialized yet")
    means = _MEANS.get(status, "it failed inside")
    return VaultUnavailableError(f"{where}: Vault is unavailable ({status}, {means}){said}")


def texts_of(raw: bytes) -> Iterable[str]:
    """The texts in the answer's `errors`; nothing where the body is anything else."""
    try:
        answer = json.loads(raw)
    except (ValueError, RecursionError):
        return ()
    errors = cast("Mapping[str, Any]", answer).get("errors") if isinstance(answer, dict) else None
    if not isinstance(errors, list):
        return ()
    return [text for text in cast("list[Any]", errors)[:_MAX_TEXTS] if isinstance(text, str)]


def cleaned(text: str, *, hide: tuple[Secret | None, JsonObject | None] = (None, None)) -> str:
    """`text` in one printable line of sane length, without the token and the secrets of the request."""
    token, body = hide
    secrets = [token.reveal()] if token is not None else []
    secrets += [value for key in _CONFIDENTIAL if isinstance(value := (body or {}).get(key), str)]
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    line = _UNPRINTABLE.sub(" ", text[: _MAX_TEXT * 2]).strip()
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"
