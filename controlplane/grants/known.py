"""What is known of a request, or of a grant that is on its way, as selections look at it."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from controlplane.engines import engines
from controlplane.model.canonical import JsonValue
from controlplane.model.entitlement import Entitlement
from controlplane.model.grant import Grant, TaskId
from controlplane.model.identity import IssuerName
from controlplane.model.network import Address
from controlplane.model.request import GrantRequest
from controlplane.model.selection import Asking
from controlplane.model.task import Line, Task


class Caller(Protocol):
    """Whoever asks, or asked before: then without his claims."""

    @property
    def issuer(self) -> IssuerName:
        """The configured issuer's name."""
        ...

    @property
    def subject(self) -> str:
        """`sub`."""
        ...

    @property
    def claims(self) -> Mapping[str, JsonValue]:
        """What is known of him."""
        ...


def asking(
    who: Caller,
    asked: GrantRequest | Grant,
    entitlement: Entitlement | None,
    *,
    address: Address | None = None,
    above: Iterable[TaskId] = (),
    paths: Iterable[str] = (),
) -> Asking:
    """It; `paths` are those in Vault that its credentials are read from, `above` the tasks its own is a part of."""
    scopes = () if entitlement is None else entitlement.scopes
    return Asking(
        issuer=who.issuer,
        subject=who.subject,
        entitlement=asked.entitlement,
        task=asked.task,
        intent=asked.intent,
        above=tuple(above),
        claims=who.claims,
        address=address,
        document=entitlement,
        mounts=tuple(path.partition("/")[0] for path in paths),
        targets=tuple(engines()[scope.engine].target(scope).name for scope in scopes),
    )


def above(line: Line | None, asked: GrantRequest) -> tuple[TaskId, ...]:
    """The tasks that the one that is asked for is a part of, as far as anybody looked."""
    if line is not None:
        return ids(line.above)
    return () if asked.parent is None else (asked.parent,)


def ids(tasks: Iterable[Task]) -> tuple[TaskId, ...]:
    """What they are called."""
    return tuple(task.id for task in tasks)
