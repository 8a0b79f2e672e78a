"""How far a sink was told of the audit chain."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkCursor:
    """Everything up to `seq` was told. `attempts` failed since; it is tried again at `due_at`.

    `held_until` is until when it is left to whoever claimed it, None where nobody did.
    """

    sink: str
    seq: int
    attempts: int
    due_at: datetime
    held_until: datetime | None
