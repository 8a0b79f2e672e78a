"""The tenth version: what was known when a grant was asked for, so that it can be selected by that later."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the table, and an index for each key that had none; of grants of before nothing is known."""
    op.create_table(
        "notes",
        sa.Column("grant_id", sa.Text, sa.ForeignKey("grants.id", name="a_note_is_of_a_grant"), primary_key=True),
        sa.Column("note", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
    )
    some = sa.text("state NOT IN ('denied', 'lapsed', 'revoked')")
    op.create_index("open_grants_by_subject", "grants", ["subject"], sqlite_where=some, postgresql_where=some)
    op.create_index("leases_by_principal", "leases", ["principal"])
    op.create_index("approvals_by_subject", "approvals", ["subject"])
    if op.get_bind().dialect.name == "postgresql":
        op.create_index("notes_by_key_and_value", "notes", ["note"], postgresql_using="gin")
