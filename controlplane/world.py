"""The real clock, the real randomness and real threads: whoever needs one gets it through a port."""

import base64
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TypeVar

T = TypeVar("T")


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


class Threads:
    """Runs calls beside their callers, `limit` at most at once; more wait for their turn. Calls must not nest."""

    def __init__(self, limit: int) -> None:
        self._pool = ThreadPoolExecutor(limit, thread_name_prefix="shorthold-meanwhile")

    def __call__(self, call: Callable[[], T]) -> Callable[[], T]:
        """See the port Meanwhile."""
        return self._pool.submit(call).result

    def close(self) -> None:
        """Wait until all calls have come to their end."""
        self._pool.shutdown(wait=True)
