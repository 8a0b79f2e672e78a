"""The fifth version: who agreed or refused, what approvers are shown, and that a no beats what was approved."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


_NEVER = {"changes": "UPDATE", "goes": "DELETE"}


def upgrade() -> None:
    """Add the columns, the move, the indexes and the tables; of old grants no person and no narrowing is known."""
    for column in ("person", "unusual", "scopes"):
        op.add_column("grants", sa.Column(column, sa.Text))
    op.execute("INSERT INTO grant_transitions (before, after) VALUES ('approved', 'denied')")
    some = sa.text("state = 'pending'")
    for name, columns in (
        ("pending_grants_by_age", ["requested_at", "id"]),
        ("pending_grants_by_workload", ["workload"]),
    ):
        op.create_index(name, "grants", columns, sqlite_where=some, postgresql_where=some)
    op.create_table(
        "approvals",
        sa.Column("grant_id", sa.Text, sa.ForeignKey("grants.id", name="an_approval_is_for_a_grant"), primary_key=True),
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("person", sa.Text),
        sa.Column("groups", sa.Text, nullable=False),
        sa.Column("claims", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("narrow_ttl", sa.BigInteger),
        sa.Column("narrow_scopes", sa.Text),
        sa.Column("at", _INSTANT, nullable=False),
        sa.CheckConstraint("narrow_ttl IS NULL OR narrow_ttl > 0", name="an_approval_never_makes_a_grant_endless"),
    )
    op.create_table(
        "denials",
        sa.Column("grant_id", sa.Text, sa.ForeignKey("grants.id", name="a_denial_is_of_a_grant"), primary_key=True),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("person", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
    )
    for table, said in (("approvals", "an_approval"), ("denials", "a_denial")):
        for never, moment in _NEVER.items():
            _refuse(f"{said}_never_{never}", moment, table)


def _refuse(name: str, moment: str, table: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" RAISE EXCEPTION '{name}' USING ERRCODE = 'check_violation', CONSTRAINT = '{name}'; END $$"
        )
        op.execute(f"CREATE TRIGGER {name} BEFORE {moment} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")
    else:
        op.execute(f"CREATE TRIGGER {name} BEFORE {moment} ON {table} BEGIN SELECT RAISE(ABORT, '{name}'); END")
