"""A store with as many grants as years of agents leave behind, filled by COPY: most have ended, some are open."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Dialect, Table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.types import TypeEngine

from controlplane.model.entitlement import Risk
from controlplane.model.grant import Grant, GrantId, Revision, State, TaskId, Why
from controlplane.model.identity import IssuerName, workload_id
from controlplane.model.lease import Accessor, Ended, Lease, LeaseId, Receipt, Target
from controlplane.model.selection import Note
from controlplane.stores.rows import grant_row, lease_row, note_row
from controlplane.stores.schema import approvals, grants, leases, notes, tasks

AGENTS: Final = 100
ENTITLEMENTS: Final = 40
REVISIONS: Final = 5
TARGETS: Final = 20
_A_TASK: Final = 4  # grants of one
_SPAN: Final = timedelta(minutes=5)
_RISKS: Final = (*[Risk.LOW] * 6, *[Risk.MEDIUM] * 3, Risk.HIGH)
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """So many grants, the youngest `open` of them open, asked for one after the other until `until`."""

    count: int
    open: int
    until: datetime
    every: timedelta = timedelta(seconds=5)

    def fill(self, dsn: str) -> None:
        """Write them into a new store. Its triggers rest meanwhile: they forbid a grant to begin as a tombstone."""
        told: tuple[tuple[Table, Callable[[int], Row | None]], ...] = (
            (grants, lambda number: grant_row(self.grant(number))),
            (notes, lambda number: note_row(_id(number), note(number))),
            (leases, self._lease_row),
            (tasks, self._task_row),
            (approvals, self._approval_row),
        )
        with psycopg.connect(dsn) as connection:
            connection.execute("SET LOCAL session_replication_role = replica")
            for table, row in told:
                _copy(connection, table, (row(number) for number in range(self.count)))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def grant(self, number: int) -> Grant:
        """The grant of that number, as it was last saved."""
        agent, entitlement, at = number % AGENTS, number * 7 % ENTITLEMENTS, self._at(number)
        issuer = IssuerName("cluster" if agent % 4 else "github")
        subject = f"system:serviceaccount:agents:agent-{agent:03}"
        issued = Grant(
            id=_id(number),
            state=State.ACTIVE,
            version=4,
            entitlement=f"orders-{entitlement:02}",
            revision=Revision(f"{entitlement * REVISIONS + number * REVISIONS // self.count:08x}"),
            issuer=issuer,
            subject=subject,
            workload=workload_id(issuer, subject),
            task=_task(number),
            intent=("answer-question", "prepare-report", "issue-refund")[number % 3],
            reason="who ordered?",
            ttl=_SPAN,
            request_digest=f"{number:064x}",
            paths=(_path(number),),
            requested_at=at,
            expires_at=at + _SPAN,
            due_at=at + _SPAN,
            accessor=Accessor(f"acc{number:024x}"),
            wrap_accessor=Accessor(f"wrap{number:024x}"),
            issued_at=at + timedelta(seconds=1),
        )
        if self._is_open(number):
            return _unfinished(issued, number)
        return replace(issued, **_ended(number, at + timedelta(minutes=2)))

    def lease(self, number: int) -> Lease:
        """The one lease of that grant."""
        at = self._at(number)
        return Lease(
            id=LeaseId(f"{_path(number)}/{number:024x}"),
            scope="orders",
            engine="database",
            path=_path(number),
            target=Target(kind="postgresql", name=f"orders-{number % TARGETS:02}"),
            principal=f"v-sh-orders-{number:016x}",
            issued_at=at,
            expires_at=at + _SPAN,
        )

    def _at(self, number: int) -> datetime:
        return self.until - (self.count - number) * self.every

    def _is_open(self, number: int) -> bool:
        return number >= self.count - self.open

    def _lease_row(self, number: int) -> Row | None:
        made = not self._is_open(number) or number % 20
        return {"number": number + 1, **lease_row(_id(number), self.lease(number))} if made else None

    def _task_row(self, number: int) -> Row | None:
        if number % (AGENTS * _A_TASK) >= AGENTS:
            return None
        grant = self.grant(number)
        ended = None if self._is_open(number) else grant.revoked_at
        return {
            "workload": grant.workload,
            "id": grant.task,
            "parent": None,
            "depth": 1,
            "begun_at": grant.requested_at,
            "finished_at": ended,
            "why": None if ended is None else Why.COMPLETED.value,
        }

    def _approval_row(self, number: int) -> Row | None:
        if number // AGENTS % 10:
            return None
        grant = self.grant(number)
        return {
            "grant_id": grant.id,
            "issuer": "people",
            "subject": f"person-{number % 30:02}@acme.example",
            "groups": "[]",
            "claims": "{}",
            "digest": "0" * 64,
            "reason": "",
            "at": grant.requested_at,
        }


def note(number: int) -> Note:
    """What was known of that grant when it was asked for."""
    agent, entitlement = number % AGENTS, number * 7 % ENTITLEMENTS
    return {
        "owner": (f"team-{entitlement % 12}@acme.example",),
        "risk": (_RISKS[entitlement % len(_RISKS)],),
        "sensitivity": (("pii", "internal", "public")[entitlement % 3],),
        "engine": ("database",),
        "mount": ("database",),
        "target": (f"orders-{number % TARGETS:02}",),
        "address": (f"10.1.{agent}.{number // AGENTS % 200}",),
        "label.env": ("prod" if entitlement % 2 else "test",),
        "label.team": (f"team-{entitlement % 12}",),
        "claim.kubernetes.io/namespace": (f"agents-{agent % 8}",),
        "claim.sub": (f"system:serviceaccount:agents:agent-{agent:03}",),
    }


def _unfinished(issued: Grant, number: int) -> Grant:
    """An open grant: most are active, some are made, and some end."""
    if number % 20 == 0:
        return replace(issued, state=State.PENDING, version=1, accessor=None, wrap_accessor=None, issued_at=None)
    if number % 20 == 1:
        return replace(issued, state=State.REVOKING, version=5, why=Why.COMPLETED, revoking_at=issued.expires_at)
    return issued


def _ended(number: int, at: datetime) -> dict[str, Any]:
    lease = LeaseId(f"{_path(number)}/{number:024x}")
    end = Ended(
        lease=lease, principal=f"v-sh-orders-{number:016x}", method="token", at=at, verified=True, evidence="no user"
    )
    return {
        "state": State.REVOKED,
        "version": 6,
        "due_at": None,
        "why": Why.COMPLETED,
        "revoking_at": at,
        "revoked_at": at,
        "receipt": Receipt(ended=(end,), signed="e30.e30." + "A" * 86),
    }


def _id(number: int) -> GrantId:
    return GrantId(f"gr_{number:024x}")


def _task(number: int) -> TaskId:
    return TaskId(f"T-{number // (AGENTS * _A_TASK)}")  # of each agent: the same word names tasks of several


def _path(number: int) -> str:
    return f"database/creds/sh-orders-{number * 7 % ENTITLEMENTS:02}-orders"


def _copy(connection: psycopg.Connection, table: Table, told: Iterator[Row | None]) -> None:
    """Write rows as the columns' types write them."""
    columns, speaks = list(table.columns), dialect()
    binders = [_binder(column.type, speaks) for column in columns]
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table.name), names)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in told:
            if row is not None:
                values = [row.get(column.name) for column in columns]
                copy.write_row([bind(value) for bind, value in zip(binders, values, strict=True)])


def _binder(kind: TypeEngine[Any], speaks: Dialect) -> Callable[[object], object]:
    impl = kind.dialect_impl(speaks)
    if isinstance(impl, JSONB):
        return Jsonb
    return impl.bind_processor(speaks) or _as_it_is


def _as_it_is(value: object) -> object:
    return value
