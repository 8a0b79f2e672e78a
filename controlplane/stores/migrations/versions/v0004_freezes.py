"""The fourth version: what must not be granted for now, and who said so."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the table; the partial index is what every request asks, and it is empty while nothing is frozen."""
    op.create_table(
        "freezes",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("selection", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False),
        sa.Column("expires_at", _INSTANT),
        sa.Column("thaws", sa.Text, nullable=False),
        sa.Column("thawed_at", _INSTANT),
        sa.CheckConstraint("expires_at IS NULL OR expires_at > created_at", name="a_freeze_expires_after_it_was_made"),
        sa.CheckConstraint("thawed_at IS NULL OR thaws <> '[]'", name="a_thawed_freeze_says_who_thawed_it"),
    )
    op.create_index("freezes_by_age", "freezes", ["created_at", "id"])
    some = sa.text("thawed_at IS NULL")
    op.create_index("freezes_that_may_be_active", "freezes", ["expires_at"], sqlite_where=some, postgresql_where=some)
