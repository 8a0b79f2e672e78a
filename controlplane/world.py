"""The real clock and the real randomness: whoever needs either gets it through a port."""

import base64
import secrets
from datetime import UTC, datetime


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The instant, aware UTC."""
        return datetime.now(UTC)  # noqa: TID251 # this is the Clock that everybody else asks


class RandomIds:
    """Ids from the kernel's randomness."""

    def new(self, prefix: str) -> str:
        """`prefix`, `_` and 24 characters `[a-z2-7]`: 120 random bits."""
        return f"{prefix}_{base64.b32encode(secrets.token_bytes(15)).decode().lower()}"
