"""Ask Vault whether a token that it handed out as a credential is gone: by its accessor, which opens nothing."""

import time
from collections.abc import Callable
from datetime import datetime

from controlplane.model.errors import TargetUnavailableError, VaultRefusedError, VaultUnavailableError
from controlplane.model.lease import Accessor, Evidence, Target, TokenFacts

_LOOKS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Seconds between looks: a token's children end a moment after it."""


class TokenProber:
    """Fits `ports.Prober`. `facts` is what Vault knows of a token, None where it knows none."""

    def __init__(
        self, facts: Callable[[Accessor], TokenFacts | None], *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self._facts, self._pause = facts, pause

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Whether Vault knows no token with the accessor `principal` any more.

        Raises: TargetUnavailableError: Vault did not answer.
        """
        del target, issued_at  # there is one Vault, and an accessor is never used twice
        try:
            for wait in _LOOKS:
                self._pause(wait)
                if self._facts(Accessor(principal)) is None:
                    return Evidence(gone=True, detail=f"Vault knows no token with the accessor {principal}")
        except (VaultRefusedError, VaultUnavailableError) as error:
            raise TargetUnavailableError(f"Vault does not say whether {principal} is gone: {error.detail}") from None
        return Evidence(gone=False, detail=f"Vault still knows the token with the accessor {principal}")
