"""A decision: yes, no with reasons, or yes once somebody approves."""

from dataclasses import dataclass
from enum import StrEnum


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
    """Why one decision said what it said: `code` is stable for machines, `detail` is a sentence for people."""

    decision: Decides
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """Every decision said yes; the reasons say why each did."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """At least one decision said no; the reasons are those of the refusals."""

    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedsApproval:
    """Every decision said yes, but people have to agree first."""

    reasons: tuple[Reason, ...]
    quorum: int


Decision = Allow | Deny | NeedsApproval
