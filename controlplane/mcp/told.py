"""What the tools tell a model: these fields and no others, so that nothing that opens a door can be among them."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from controlplane.sdk.calls import Json


class Told(BaseModel):
    """What is not named by a field of its kind is left out."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Choice(Told):
    """An entitlement that covers some of the needs, what it costs, and what runs a program with it."""

    entitlement: str
    intent: str
    covers: list[str]
    opens: list[str]
    risk: str
    longest: str = Field(description="The longest that one grant may live.")
    approval: str = Field(description="Who has to agree first.")
    when: str

    @classmethod
    def of(cls, found: Json) -> Self:
        """Out of an answer of `POST /v1/needs`."""
        access, ask = found["access"], found["ask"]
        approval = access["approval"]
        return cls(
            entitlement=ask["entitlement"],
            intent=ask["intent"],
            covers=found["covers"],
            opens=access["opens"],
            risk=access["risk"],
            longest=access["ttl"]["max"],
            approval="nobody" if approval is None else approval["says"],
            when=access["when"]["says"],
        )


class FoundAccess(Told):
    """The least that covers what is needed; `missing` is covered by nothing that the caller may ask for."""

    found: list[Choice]
    missing: list[str]


class Arranged(Told):
    """Whether access may be used now, and how: the credential goes to the program that `use` starts, to nobody else."""

    state: str = Field(description="allowed or approved: `use` works now; pending: people have to agree first.")
    says: str
    grant: str | None = None
    use: list[str] | None = Field(default=None, description="The words of a command; put the program after `--`.")
    page: str | None = Field(default=None, description="Where a person who may agree does so.")


class Why(Told):
    """One reason of a decision."""

    decision: str
    says: str
    code: str
    detail: str


class Decided(Told):
    """What would be decided now, and every reason: yes, no or wait."""

    decision: str
    reasons: list[Why]
    retry_after: int | None = Field(description="Seconds after which a budget lets the same request through.")


class Held(Told):
    """A grant of the caller's: what it is for, and whether it is gone."""

    id: str
    state: str
    entitlement: str
    task: str
    intent: str
    expires_at: str
    why: str | None
    verified_gone: bool

    @classmethod
    def of(cls, grant: Json) -> Self:
        """Out of any answer that has grants."""
        receipt: Mapping[str, Any] = grant.get("receipt") or {}
        return cls.model_validate({**grant, "verified_gone": receipt.get("verified") is True})


class Grants(Told):
    """The caller's newest grants."""

    grants: list[Held]


class Finished(Told):
    """The task that was finished, and the grants that had not ended before."""

    task: str
    why: str | None
    grants: list[Held]


def using(entitlement: str, *more: str) -> list[str]:
    """What runs a program with the access; the program's own words follow."""
    return ["shorthold", "exec", entitlement, *more, "--"]


def command(words: Sequence[str]) -> str:
    """The same as one line of a shell."""
    return f"{shlex.join(words)} PROGRAM …"
