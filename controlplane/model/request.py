"""What a workload asks for: an entitlement, for a task, with an intent."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from controlplane.model.canonical import JsonValue, canonical
from controlplane.model.grant import TaskId


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRequest:
    """One wish. `ttl` is None where the entitlement's default is good enough; `reason` is for people.

    `parent` is the task of the same workload that this one is a part of; only its first request need say so.
    `parameters` are the values to which it narrows the entitlement, by name.
    """

    entitlement: str
    task: TaskId
    intent: str
    reason: str = ""
    ttl: timedelta | None = None
    parent: TaskId | None = None
    parameters: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of everything asked: the same idempotency key must bring the same digest."""
        asked: dict[str, JsonValue] = {
            "entitlement": self.entitlement,
            "task": self.task,
            "intent": self.intent,
            "reason": self.reason,
            "ttl": None if self.ttl is None else self.ttl.total_seconds(),
        }
        if self.parent is not None:  # left out otherwise: keys that were used before tasks had parents stay good
            asked["parent"] = self.parent
        if self.parameters:
            asked["parameters"] = {**self.parameters}
        return hashlib.sha256(canonical(asked)).hexdigest()
