"""The seventh version: what was found without a grant, work in rounds, and questions about open grants only."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the tables and the indexes."""
    op.create_table(
        "orphans",
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("grant_id", sa.Text),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("found_at", _INSTANT, nullable=False),
        sa.CheckConstraint("kind IN ('lease', 'login', 'token')", name="an_orphan_has_a_known_kind"),
    )
    op.create_table(
        "rounds",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("next_at", _INSTANT, nullable=False),
        sa.Column("mark", sa.BigInteger, nullable=False),
    )
    some = sa.text("state NOT IN ('denied', 'lapsed', 'revoked')")
    op.create_index("open_grants_by_accessor", "grants", ["accessor"], sqlite_where=some, postgresql_where=some)
