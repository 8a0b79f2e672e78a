"""One keep-alive connection that speaks JSON, the same for every way: what is compared are servers, not clients."""

import json
from collections.abc import Mapping
from typing import Any, cast

import urllib3


class WrongAnswerError(Exception):
    """An answer was not what the next step needs; it says which, without quoting what may hold a secret."""


def token(value: str) -> dict[str, str]:
    """The header by which Vault knows a caller."""
    return {"X-Vault-Token": value}


def bearer(value: str) -> dict[str, str]:
    """The header by which we know a caller."""
    return {"Authorization": f"Bearer {value}"}


class Wire:
    """One thread's own connection to one server."""

    def __init__(self, addr: str) -> None:
        self._pool = urllib3.connection_from_url(addr, maxsize=1, timeout=urllib3.Timeout(30))

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        status: int = 200,
    ) -> dict[str, Any]:
        """The answer, which must have that `status`. Raises: WrongAnswerError: another status, or no answer."""
        try:
            answer = self._pool.urlopen(
                method,
                path,
                body=None if body is None else json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **(headers or {})},
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise WrongAnswerError(f"{method} {path}: {type(error).__name__}") from None
        if answer.status != status:
            raise WrongAnswerError(f"{method} {path}: {answer.status} instead of {status}")
        return cast("dict[str, Any]", json.loads(answer.data)) if answer.data else {}

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()
