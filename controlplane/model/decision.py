"""A decision: yes, no with reasons, or yes once somebody approves."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar


class Decides(StrEnum):
    """Which of the decisions spoke; always separate, always in this order."""

    FREEZE = "freeze"
    ELIGIBILITY = "eligibility"
    CONTEXT = "context"
    SCOPE = "scope"
    POLICY = "policy"
    APPROVAL = "approval"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why one decision said what it said: `code` is stable for machines, `detail` is a sentence for people.

    `revision` is that of the policies, where they decided.
    """

    decision: Decides
    code: str
    detail: str
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What policy-as-code says: whether it permits, why, and the names of the policies that decided."""

    permitted: bool
    reasons: tuple[Reason, ...]
    policies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """Every decision said yes; the reasons say why each did."""

    outcome: ClassVar[str] = "allow"
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """At least one decision said no; `reasons` are those of the refusals, `passed` are those that said yes.

    `over_budget` means that nothing but a budget said no; `retry_after` is when a rate lets the next one through.
    """

    outcome: ClassVar[str] = "deny"
    reasons: tuple[Reason, ...]
    passed: tuple[Reason, ...] = ()
    over_budget: bool = False
    retry_after: timedelta | None = None

    @property
    def frozen(self) -> bool:
        """Whether a freeze is among those that said no: it beats everything."""
        return any(why.decision is Decides.FREEZE for why in self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsApproval:
    """Every decision said yes, but people have to agree first."""

    outcome: ClassVar[str] = "needs-approval"
    reasons: tuple[Reason, ...]
    quorum: int


Decision = Allow | Deny | NeedsApproval
