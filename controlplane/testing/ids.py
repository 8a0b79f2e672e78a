"""Ids that count, so that a test can say them in advance."""

import base64
import itertools
from typing import Final

_RANDOM_BYTES: Final = 15


class CountingIds:
    """Fits the Ids port: of its form, but each is the one before plus one. Thread-safe, and not for production."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def new(self, prefix: str) -> str:
        """`prefix`, `_` and the next number as 24 characters `[a-z2-7]`: first `aaa…ab`."""
        digits = base64.b32encode(next(self._numbers).to_bytes(_RANDOM_BYTES, "big")).decode("ascii")
        return f"{prefix}_{digits.lower()}"
