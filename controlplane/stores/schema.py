"""The tables, one schema for SQLite and PostgreSQL; constraint names are the sentences that they enforce.

What SQL has no CHECK for (legal moves, tombstones that never change, events that are never touched) is done by
triggers, which stand with the tables' first version in `migrations/`.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    TIMESTAMP,
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    TypeDecorator,
    column,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine
from typing_extensions import override

from controlplane.model.canonical import instant
from controlplane.model.grant import TERMINAL, State
from controlplane.model.orphan import OrphanKind
from controlplane.model.task import DEEPEST

metadata = MetaData()


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant to the microsecond: PostgreSQL's own type, RFC 3339 text of one width on SQLite."""

    impl = String(27)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime] | TypeEngine[str]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(String(27))

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | str | None:
        if value is None:
            return None
        text = instant(value)  # also where the text is not needed: it refuses an instant without a zone
        return value if dialect.name == "postgresql" else text

    @override
    def process_result_value(self, value: datetime | str | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return datetime.fromisoformat(value) if isinstance(value, str) else value.astimezone(UTC)


class Span(TypeDecorator[timedelta]):
    """A length of time in whole microseconds."""

    impl = BigInteger
    cache_ok = True

    @override
    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:
        return None if value is None else value // timedelta(microseconds=1)

    @override
    def process_result_value(self, value: int | None, dialect: Dialect) -> timedelta | None:
        return None if value is None else timedelta(microseconds=value)


_COUNTER: Final = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts by itself only in an INTEGER


def _words(states: frozenset[State]) -> str:
    return ", ".join(f"'{state.value}'" for state in sorted(states))


def _said(sentence: str, sql: str) -> CheckConstraint:
    return CheckConstraint(sql, name=sentence)


OPEN: Final = f"state NOT IN ({_words(TERMINAL)})"
"""A grant that has not ended. Word for word in index and question: else neither database uses the one for the other."""
_KINDS: Final = ", ".join(f"'{kind.value}'" for kind in sorted(OrphanKind))
_ENDING: Final = frozenset({State.REVOKING, State.IRREVOCABLE, State.REVOKED})

grants: Final = Table(
    "grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("entitlement", Text, nullable=False),
    Column("revision", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("person", Text),
    Column("workload", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("intent", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ttl", Span, nullable=False),
    Column("unusual", Text),
    Column("parameters", Text),
    Column("scopes", Text),
    Column("under", Text),
    Column("idempotency_key", Text),
    Column("request_digest", Text, nullable=False),
    Column("paths", Text, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("due_at", Instant),
    Column("settles_at", Instant),
    Column("accessor", Text),
    Column("wrap_accessor", Text),
    Column("issued_at", Instant),
    Column("why", Text),
    Column("revoking_at", Instant),
    Column("revoked_at", Instant),
    Column("receipt", Text),
    Column("attempts", Integer, nullable=False),
    Column("failing", Text),
    Column("heartbeat_due_at", Instant),
    Column("renewing_to", Instant),
    Column("renewing_by", Instant),
    Column("held_by", Text),
    Column("held_until", Instant),
    _said("a_grant_has_a_known_state", f"state IN ({_words(frozenset(State))})"),
    _said("a_grant_has_a_version", "version >= 1"),
    _said("a_grant_has_a_length", "ttl > 0"),
    _said(
        "a_grant_is_revoked_only_after_it_began_revoking",
        "revoked_at IS NULL OR (revoking_at IS NOT NULL AND revoked_at >= revoking_at)",
    ),
    _said("a_grant_is_revoked_when_it_says_since_when", "(state = 'revoked') = (revoked_at IS NOT NULL)"),
    _said("a_revoked_grant_has_its_receipt", "(revoked_at IS NULL) = (receipt IS NULL)"),
    _said(
        "an_active_grant_was_issued_with_a_known_token",
        "state <> 'active' OR (issued_at IS NOT NULL AND accessor IS NOT NULL)",
    ),
    _said(
        "a_grant_that_ends_says_why_and_since_when",
        f"state NOT IN ({_words(_ENDING)}) OR (why IS NOT NULL AND revoking_at IS NOT NULL)",
    ),
    _said("a_tombstone_is_never_due", f"state NOT IN ({_words(TERMINAL)}) OR due_at IS NULL"),
    _said("a_held_grant_has_a_holder", "(held_by IS NULL) = (held_until IS NULL)"),
)
Index(
    "a_workload_uses_an_idempotency_key_once",
    grants.c.workload,
    grants.c.idempotency_key,
    unique=True,
    sqlite_where=grants.c.idempotency_key.is_not(None),
    postgresql_where=grants.c.idempotency_key.is_not(None),
)
Index(
    "grants_by_due",
    grants.c.due_at,
    sqlite_where=grants.c.due_at.is_not(None),
    postgresql_where=grants.c.due_at.is_not(None),
)
Index("grants_by_age", grants.c.requested_at, grants.c.id)
Index("grants_by_workload", grants.c.workload, grants.c.requested_at, grants.c.id)
Index("grants_by_task", grants.c.task, grants.c.requested_at, grants.c.id)
Index("grants_by_entitlement", grants.c.entitlement, grants.c.requested_at, grants.c.id)
Index(
    "open_grants_by_entitlement",
    grants.c.entitlement,
    grants.c.workload,
    sqlite_where=text(OPEN),
    postgresql_where=text(OPEN),
)
Index("open_grants_by_accessor", grants.c.accessor, sqlite_where=text(OPEN), postgresql_where=text(OPEN))
PENDING: Final = text("state = 'pending'")
"""Word for word in `stores/approvals.py`, so that its questions use the indexes on what waits for people."""
Index("pending_grants_by_age", grants.c.requested_at, grants.c.id, sqlite_where=PENDING, postgresql_where=PENDING)
Index("pending_grants_by_workload", grants.c.workload, sqlite_where=PENDING, postgresql_where=PENDING)
Index("grants_by_state", grants.c.state, grants.c.requested_at, grants.c.id)

Index(
    "grants_by_what_they_hang_from",
    grants.c.under,
    sqlite_where=grants.c.under.is_not(None),
    postgresql_where=grants.c.under.is_not(None),
)
Index("open_grants_by_task", grants.c.workload, grants.c.task, sqlite_where=text(OPEN), postgresql_where=text(OPEN))

tasks: Final = Table(
    "tasks",
    metadata,
    Column("workload", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("parent", Text),
    Column("depth", Integer, nullable=False),
    Column("begun_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("why", Text),
    ForeignKeyConstraint(
        ["workload", "parent"], ["tasks.workload", "tasks.id"], name="a_parent_is_a_task_of_the_same_workload"
    ),
    _said("a_task_is_not_its_own_parent", "parent IS NULL OR parent <> id"),
    _said("a_task_is_as_deep_as_it_may_be", f"depth BETWEEN 1 AND {DEEPEST} AND (depth = 1) = (parent IS NULL)"),
    _said("a_finished_task_says_why", "(finished_at IS NULL) = (why IS NULL)"),
)
Index(
    "tasks_by_parent",
    tasks.c.workload,
    tasks.c.parent,
    tasks.c.begun_at,
    sqlite_where=tasks.c.parent.is_not(None),
    postgresql_where=tasks.c.parent.is_not(None),
)

Index("open_grants_by_subject", grants.c.subject, sqlite_where=text(OPEN), postgresql_where=text(OPEN))

notes: Final = Table(
    "notes",
    metadata,
    Column("grant_id", Text, ForeignKey("grants.id", name="a_note_is_of_a_grant"), primary_key=True),
    Column("note", JSON().with_variant(JSONB(), "postgresql"), nullable=False),
)
"""What was known when a grant was asked for, by key; on PostgreSQL with an index over every key and value."""
Index("notes_by_key_and_value", notes.c.note, postgresql_using="gin", info={"only": "postgresql"}).ddl_if(
    dialect="postgresql"
)

grant_transitions: Final = Table(
    "grant_transitions",
    metadata,
    Column("before", Text, primary_key=True),
    Column("after", Text, primary_key=True),
)

leases: Final = Table(
    "leases",
    metadata,
    Column("number", _COUNTER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("grant_id", Text, ForeignKey("grants.id", name="a_lease_belongs_to_a_grant"), nullable=False),
    Column("scope", Text, nullable=False),
    Column("engine", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("target_kind", Text, nullable=False),
    Column("target_name", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("issued_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("rotation", Text),  # JSON
)
Index("leases_by_grant", leases.c.grant_id, leases.c.number)
Index("leases_by_path", leases.c.path)
Index("leases_by_principal", leases.c.principal)

tokens: Final = Table(
    "tokens",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("grant_id", Text, ForeignKey("grants.id", name="a_token_is_spent_on_a_grant"), nullable=False),
    Column("keep_until", Instant, nullable=False),
)
Index("tokens_by_end", tokens.c.keep_until)

orphans: Final = Table(
    "orphans",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("place", Text, nullable=False),
    Column("grant_id", Text),  # what it says of itself: no such grant need exist
    Column("detail", Text, nullable=False),
    Column("found_at", Instant, nullable=False),
    _said("an_orphan_has_a_known_kind", f"kind IN ({_KINDS})"),
)

rounds: Final = Table(
    "rounds",
    metadata,
    Column("name", Text, primary_key=True),
    Column("next_at", Instant, nullable=False),
    Column("mark", BigInteger, nullable=False),
)

approvals: Final = Table(
    "approvals",
    metadata,
    Column("grant_id", Text, ForeignKey("grants.id", name="an_approval_is_for_a_grant"), primary_key=True),
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("person", Text),
    Column("groups", Text, nullable=False),
    Column("claims", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("narrow_ttl", Span),
    Column("narrow_scopes", Text),
    Column("at", Instant, nullable=False),
    _said("an_approval_never_makes_a_grant_endless", "narrow_ttl IS NULL OR narrow_ttl > 0"),
)

Index("approvals_by_subject", approvals.c.subject)

denials: Final = Table(
    "denials",
    metadata,
    Column("grant_id", Text, ForeignKey("grants.id", name="a_denial_is_of_a_grant"), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("person", Text),
    Column("reason", Text, nullable=False),
    Column("at", Instant, nullable=False),
)

reviews: Final = Table(
    "reviews",
    metadata,
    Column("grant_id", Text, ForeignKey("grants.id", name="a_review_is_of_a_grant"), primary_key=True),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("person", Text),
    Column("workload", Text, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("closed_at", Instant),
    Column("closed_by_issuer", Text),
    Column("closed_by_subject", Text),
    Column("closed_by_person", Text),
    Column("note", Text),
    _said(
        "a_closed_review_says_by_whom_and_what_he_found",
        "(closed_at IS NULL) = (closed_by_issuer IS NULL) AND (closed_at IS NULL) = (closed_by_subject IS NULL)"
        " AND (closed_at IS NULL) = (note IS NULL) AND (closed_at IS NOT NULL OR closed_by_person IS NULL)",
    ),
    _said("a_review_is_closed_by_somebody_else", "closed_by_subject IS NULL OR closed_by_subject <> subject"),
)
Index(
    "open_reviews_by_age",
    reviews.c.opened_at,
    reviews.c.grant_id,
    sqlite_where=reviews.c.closed_at.is_(None),
    postgresql_where=reviews.c.closed_at.is_(None),
)

review_names: Final = Table(
    "review_names",
    metadata,
    Column("name", Text, primary_key=True),
    Column("grant_id", Text, ForeignKey("reviews.grant_id", name="a_name_is_of_a_review"), nullable=False),
)
"""The names of those whose review is open: the primary key lets a person have one open review at a time."""
Index("review_names_by_grant", review_names.c.grant_id)

sink_cursors: Final = Table(
    "sink_cursors",
    metadata,
    Column("sink", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("held_until", Instant),
    _said("a_cursor_stands_in_the_chain", "seq >= 0"),
)

freezes: Final = Table(
    "freezes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("selection", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("thaws", Text, nullable=False),
    Column("thawed_at", Instant),
    _said("a_freeze_expires_after_it_was_made", "expires_at IS NULL OR expires_at > created_at"),
    _said("a_thawed_freeze_says_who_thawed_it", "thawed_at IS NULL OR thaws <> '[]'"),
)
Index("freezes_by_age", freezes.c.created_at, freezes.c.id)
Index(
    "freezes_that_may_be_active",
    freezes.c.expires_at,
    sqlite_where=freezes.c.thawed_at.is_(None),
    postgresql_where=freezes.c.thawed_at.is_(None),
)

previews: Final = Table(
    "previews",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("selection", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("selected", Integer, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
)

cuts: Final = Table(
    "cuts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("incident", Text, nullable=False),
    Column("selection", Text, nullable=False),
    Column("digest", Text, ForeignKey("previews.digest", name="a_cut_was_previewed"), nullable=False, unique=True),
    Column("previewed_at", Instant, nullable=False),
    Column("reason", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("freeze", Text),
    Column("ordered_at", Instant, nullable=False),
    Column("ended_at", Instant),
    _said("a_cut_ends_after_it_was_ordered", "ended_at IS NULL OR ended_at >= ordered_at"),
)
Index("cuts_by_age", cuts.c.ordered_at, cuts.c.id)
Index(
    "cuts_that_run",
    cuts.c.ordered_at,
    sqlite_where=cuts.c.ended_at.is_(None),
    postgresql_where=cuts.c.ended_at.is_(None),
)

cut_items: Final = Table(
    "cut_items",
    metadata,
    Column("cut_id", Text, ForeignKey("cuts.id", name="an_item_is_of_a_cut"), primary_key=True),
    Column("grant_id", Text, ForeignKey("grants.id", name="an_item_is_a_grant"), primary_key=True),
)
"""What a cut is of. What has become of an item stands in its grant, and nowhere else."""

events: Final = Table(
    "events",
    metadata,
    Column("seq", _COUNTER, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False),
    Column("at", Instant, nullable=False),
    Column("kind", Text, nullable=False),
    Column("grant_id", Text),
    Column("body", Text, nullable=False),
    Column("mac", Text, nullable=False),
)
Index(
    "events_by_grant",
    events.c.grant_id,
    events.c.seq,
    sqlite_where=events.c.grant_id.is_not(None),
    postgresql_where=events.c.grant_id.is_not(None),
)

audit_head: Final = Table(
    "audit_head",
    metadata,
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("mac", Text, nullable=False),
    Column("seal", Text, nullable=False),
    _said("there_is_one_head", "place = 1"),
)

SEQ: Final = column("seq", BigInteger)
EVENTS: Final[Select[*tuple[Any, ...]]] = select(
    SEQ, *map(column, ("id", "at", "kind", "grant_id", "body", "mac"))
).select_from(table("events"))
"""The chain as the driver gives it, without types: what stands there is compared with what we write, byte for byte."""
HEAD: Final[Select[*tuple[Any, ...]]] = select(*map(column, ("seq", "mac", "seal"))).select_from(table("audit_head"))
"""The head of the chain, just so."""
