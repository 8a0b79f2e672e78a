"""How often one workload may ask: a bucket of tokens for each, in this process's memory."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from controlplane.http.refusals import RateLimitedError
from controlplane.model.identity import WorkloadId
from controlplane.model.rate import RateLimit, parse_rate

MOST_BUCKETS: Final = 10_000
"""The buckets that are kept, those used last; a forgotten one is full again, which is in its owner's favour."""


class Buckets:
    """One bucket for each workload: it holds `rate.count` and fills up in `rate.per`. Safe for threads."""

    def __init__(self, rate: RateLimit, *, now: Callable[[], float] = time.monotonic, most: int = MOST_BUCKETS) -> None:
        self._rate, self._now, self._most = rate, now, most
        self._lock = threading.Lock()
        # What is in each bucket, and when that was so.
        self._left: OrderedDict[WorkloadId, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._left)

    def take(self, whose: WorkloadId) -> timedelta | None:
        """Take one: None where there was one, else how long until there is; nothing is taken then."""
        now, per = self._now(), self._rate.per.total_seconds()
        with self._lock:
            left, at = self._left.pop(whose, (float(self._rate.count), now))
            left = min(left + (now - at) * self._rate.count / per, float(self._rate.count))
            self._left[whose] = (left - 1 if left >= 1 else left, now)
            if len(self._left) > self._most:
                self._left.popitem(last=False)
        return None if left >= 1 else timedelta(seconds=(1 - left) * per / self._rate.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The buckets for what asks, and those for what ends access, which asking never empties."""

    asking: Buckets
    ending: Buckets

    def take(self, whose: WorkloadId, *, ending: bool) -> None:
        """Count one request. Raises: RateLimitedError: it is one too many."""
        wait = (self.ending if ending else self.asking).take(whose)
        if wait is not None:
            raise RateLimitedError("this workload asks too often", retry_after=wait)


def rates(asking: RateLimit | None = None, ending: RateLimit | None = None) -> Rates:
    """Full buckets; without a rate, those of the settings' defaults."""
    return Rates(
        asking=Buckets(asking or parse_rate("1200/m")),
        ending=Buckets(ending or parse_rate("6000/m")),
    )
