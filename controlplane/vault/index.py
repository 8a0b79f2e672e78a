"""Read what was written: a standby that has not seen our last write yet passes a question on to the active node.

A standby answers look-ups from its own copy, which is a little older: right after a lease was made it says that there
is no such lease, which reads as "gone". Every answer names the point in the log at which it was true; sent back, it
obliges whichever node is asked next. Source: OpenBao docs, concepts/consistency; a Vault without it sends no such
header, and gets none.
"""

import base64
import binascii
import json
import re
import threading
from collections.abc import Mapping
from typing import Final

_HEADER: Final = re.compile(r"[A-Za-z0-9+/=]{4,512}", re.ASCII)


class Index:
    """The latest point that any answer has named. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._latest: tuple[str, int] | None = None
        self._header = ""

    def headers(self) -> Mapping[str, str]:
        """What to send along; nothing before a server has named a point."""
        if not self._header:
            return {}
        return {"X-Vault-Index": self._header, "X-Vault-Inconsistent": "forward-active-node"}

    def saw(self, header: str | None) -> None:
        """An answer came with this; what is not understood, or is older, changes nothing."""
        if header is None or header == self._header:
            return  # as after most reads
        point = _point(header)
        if point is None:
            return
        with self._lock:
            # Another cluster begins to count anew; answers of one arrive out of order.
            if self._latest is None or self._latest[0] != point[0] or self._latest[1] < point[1]:
                self._latest, self._header = point, header


def _point(header: str) -> tuple[str, int] | None:
    if not _HEADER.fullmatch(header):
        return None
    try:
        match json.loads(base64.b64decode(header, validate=True)):
            case {"cluster": str(cluster), "value": str(value)} if value.isascii() and value.isdecimal():
                return cluster, int(value)
            case _:
                return None
    except (binascii.Error, ValueError, RecursionError):
        return None
