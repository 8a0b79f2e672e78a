"""The first version: grants, leases, the audit chain, and the triggers that guard them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
_COUNTER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_TRANSITIONS = (
    ("pending", "approved"),
    ("pending", "denied"),
    ("pending", "lapsed"),
    ("approved", "issuing"),
    ("approved", "lapsed"),
    ("issuing", "active"),
    ("issuing", "revoking"),
    ("active", "revoking"),
    ("revoking", "revoked"),
    ("revoking", "irrevocable"),
    ("irrevocable", "revoking"),
)

_NO_SUCH_MOVE = "NOT EXISTS (SELECT 1 FROM grant_transitions WHERE before = OLD.state AND after = NEW.state)"
_RULES = {
    "a_grant_begins_pending_or_issuing": ("INSERT", "grants", "NEW.state NOT IN ('pending', 'issuing')"),
    "a_grant_moves_along_its_transitions": (
        "UPDATE OF state",
        "grants",
        f"NEW.state <> OLD.state AND {_NO_SUCH_MOVE}",
    ),
    "a_tombstone_never_changes": ("UPDATE", "grants", "OLD.state IN ('denied', 'lapsed', 'revoked')"),
    "a_grant_is_never_deleted": ("DELETE", "grants", None),
    "an_event_never_changes": ("UPDATE", "events", None),
    "an_event_is_never_removed": ("DELETE", "events", None),
}
"""What no CHECK can say: when a trigger of that name refuses."""


def upgrade() -> None:
    """Make everything."""
    _grants()
    _leases()
    _audit()
    if op.get_bind().dialect.name == "postgresql":
        _postgresql_rules()
    else:
        _sqlite_rules()


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("entitlement", sa.Text, nullable=False),
        sa.Column("revision", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("intent", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("ttl", sa.BigInteger, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("request_digest", sa.Text, nullable=False),
        sa.Column("paths", sa.Text, nullable=False),
        sa.Column("requested_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.Column("due_at", _INSTANT),
        sa.Column("settles_at", _INSTANT),
        sa.Column("accessor", sa.Text),
        sa.Column("wrap_accessor", sa.Text),
        sa.Column("issued_at", _INSTANT),
        sa.Column("why", sa.Text),
        sa.Column("revoking_at", _INSTANT),
        sa.Column("revoked_at", _INSTANT),
        sa.Column("receipt", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("failing", sa.Text),
        sa.Column("held_by", sa.Text),
        sa.Column("held_until", _INSTANT),
        sa.CheckConstraint(
            "state IN ('active', 'approved', 'denied', 'irrevocable', 'issuing', 'lapsed', 'pending', 'revoked',"
            " 'revoking')",
            name="a_grant_has_a_known_state",
        ),
        sa.CheckConstraint("version >= 1", name="a_grant_has_a_version"),
        sa.CheckConstraint("ttl > 0", name="a_grant_has_a_length"),
        sa.CheckConstraint(
            "revoked_at IS NULL OR (revoking_at IS NOT NULL AND revoked_at >= revoking_at)",
            name="a_grant_is_revoked_only_after_it_began_revoking",
        ),
        sa.CheckConstraint(
            "(state = 'revoked') = (revoked_at IS NOT NULL)", name="a_grant_is_revoked_when_it_says_since_when"
        ),
        sa.CheckConstraint("(revoked_at IS NULL) = (receipt IS NULL)", name="a_revoked_grant_has_its_receipt"),
        sa.CheckConstraint(
            "state <> 'active' OR (issued_at IS NOT NULL AND accessor IS NOT NULL)",
            name="an_active_grant_was_issued_with_a_known_token",
        ),
        sa.CheckConstraint(
            "state NOT IN ('irrevocable', 'revoked', 'revoking') OR (why IS NOT NULL AND revoking_at IS NOT NULL)",
            name="a_grant_that_ends_says_why_and_since_when",
        ),
        sa.CheckConstraint(
            "state NOT IN ('denied', 'lapsed', 'revoked') OR due_at IS NULL", name="a_tombstone_is_never_due"
        ),
        sa.CheckConstraint("(held_by IS NULL) = (held_until IS NULL)", name="a_held_grant_has_a_holder"),
    )
    once, keyed = "a_workload_uses_an_idempotency_key_once", ["workload", "idempotency_key"]
    _partial_index(once, "grants", keyed, "idempotency_key IS NOT NULL", unique=True)
    _partial_index("grants_by_due", "grants", ["due_at"], "due_at IS NOT NULL")
    op.create_index("grants_by_age", "grants", ["requested_at", "id"])
    for column in ("workload", "task", "entitlement", "state"):
        op.create_index(f"grants_by_{column}", "grants", [column, "requested_at", "id"])
    transitions = op.create_table(
        "grant_transitions",
        sa.Column("before", sa.Text, primary_key=True),
        sa.Column("after", sa.Text, primary_key=True),
    )
    op.bulk_insert(transitions, [{"before": before, "after": after} for before, after in _TRANSITIONS])


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("number", _COUNTER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("grant_id", sa.Text, sa.ForeignKey("grants.id", name="a_lease_belongs_to_a_grant"), nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("target_kind", sa.Text, nullable=False),
        sa.Column("target_name", sa.Text, nullable=False),
        sa.Column("principal", sa.Text, nullable=False),
        sa.Column("issued_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
    )
    op.create_index("leases_by_grant", "leases", ["grant_id", "number"])
    op.create_index("leases_by_path", "leases", ["path"])


def _audit() -> None:
    op.create_table(
        "events",
        sa.Column("seq", _COUNTER, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("grant_id", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("mac", sa.Text, nullable=False),
    )
    _partial_index("events_by_grant", "events", ["grant_id", "seq"], "grant_id IS NOT NULL")
    op.create_table(
        "audit_head",
        sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("mac", sa.Text, nullable=False),
        sa.Column("seal", sa.Text, nullable=False),
        sa.CheckConstraint("place = 1", name="there_is_one_head"),
    )


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    some = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=some, postgresql_where=some)


def _sqlite_rules() -> None:
    for name, (moment, table, refused) in _RULES.items():
        when = f" WHEN {refused}" if refused else ""
        op.execute(f"CREATE TRIGGER {name} BEFORE {moment} ON {table}{when} BEGIN SELECT RAISE(ABORT, '{name}'); END")


def _postgresql_rules() -> None:
    for name, (moment, table, refused) in _RULES.items():
        # A function each, because a trigger's WHEN may not look into another table.
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {refused or 'true'} THEN"
            f" RAISE EXCEPTION '{name}' USING ERRCODE = 'check_violation', CONSTRAINT = '{name}'; END IF;"
            " RETURN NEW; END $$"
        )
        op.execute(f"CREATE TRIGGER {name} BEFORE {moment} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")
