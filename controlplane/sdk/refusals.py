"""What can come of a call besides an answer: nobody answers, somebody else does, or the other side says no, and why."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from controlplane.model.decision import Decides, Reason
from controlplane.model.errors import ControlPlaneError


class UnreachableError(ControlPlaneError):
    """Nobody answered. If a grant was being asked for, it may exist: ask again with the same idempotency key."""

    code, exit_status = "unreachable", 2
    hint = "Is the control plane running? `shorthold dev status` tells; SHORTHOLD_ADDR says where it is looked for."


class ForeignAnswerError(ControlPlaneError):
    """Somebody answered, but not as a control plane does: nothing is known of what became of the call."""

    code, exit_status = "no-shorthold", 2
    hint = "Is SHORTHOLD_ADDR the address of the control plane, and not that of Vault or of a proxy?"


class AnsweredError(ControlPlaneError):
    """The other side said no; `problem` is its RFC 9457 body, and `reasons` are those of its decisions."""

    code, exit_status = "answered", 2

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        told: list[str] = [problem["detail"]] if problem.get("detail") else problem.get("errors") or []  # Vault's
        super().__init__("; ".join(str(text) for text in told) or f"HTTP status {status}", reasons=[*_reasons(problem)])
        self.http_status = status
        self.problem = problem

    @property
    def told_code(self) -> str:
        """The stable code the other side gave."""
        return str(self.problem.get("code") or "unknown")

    @property
    def told_exit_status(self) -> int:
        """4: people have to agree; 3: a decision or the token was refused; 1: what was asked makes no sense; else 2."""
        if self.told_code == "not-approved-yet":
            return 4
        if self.http_status in {401, 403, 423, 429}:
            return 3
        return 1 if self.http_status in {400, 422} else 2


class DeniedError(AnsweredError):
    """A decision said no, and nothing was made. Each of `reasons` has its decision, a stable code and a sentence."""


class FrozenError(DeniedError):
    """Responders have stopped this for now: do not try again until they say so."""


class OverBudgetError(DeniedError):
    """Nothing but a budget said no: the same request may be granted later."""


class ContextChangedError(DeniedError):
    """Decided anew, it would not be granted any more: the grant has ended. Stop working with its credentials."""


class EndedError(AnsweredError):
    """The grant has ended, or waited in vain: ask anew if the task is not over."""


class WaitingError(ControlPlaneError):
    """People have to agree first. Nothing has been made; the grant `id` waits, and `resume(id)` collects it later."""

    code, exit_status = "not-approved-yet", 4
    hint = "Wait for it with wait=True, or come back later: resume(id), or `shorthold grant collect ID --wait`."

    def __init__(self, detail: str, *, id: str) -> None:
        super().__init__(detail)
        self.id = id


class OverError(ControlPlaneError):
    """The access is over: its task was left, or it has ended at the control plane. Its credentials are forgotten."""

    code = "over"
    hint = "Ask for a grant of its own for whatever is still to be done."


_BY_CODE: Final[Mapping[str, type[AnsweredError]]] = {
    "denied": DeniedError,
    "frozen": FrozenError,
    "over-budget": OverBudgetError,
    "context-changed": ContextChangedError,
    "ended": EndedError,
    "lapsed": EndedError,
}


def refusal(status: int, problem: Mapping[str, Any]) -> AnsweredError:
    """The error that says what the other side said."""
    return _BY_CODE.get(str(problem.get("code")), AnsweredError)(status, problem)


def worded(error: ControlPlaneError) -> str:
    """An error as a model reads it: the stable code, what happened, every reason, and what to do."""
    code, hint = error.code, error.hint
    if isinstance(error, AnsweredError):
        code, hint = error.told_code, str(error.problem.get("hint") or hint)
    reasons = [f"{why.decision}: {why.detail} [{why.code}]" for why in error.reasons]
    return "\n".join([f"[{code}] {error.detail}", *reasons, *([f"What to do: {hint}"] if hint else [])])


def _reasons(problem: Mapping[str, Any]) -> Iterator[Reason]:
    for why in problem.get("reasons") or ():
        if why.get("decision") in set(Decides):  # a later version may have others
            yield Reason(decision=Decides(why["decision"]), code=str(why.get("code")), detail=str(why.get("detail")))
