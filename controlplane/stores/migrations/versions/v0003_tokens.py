"""The third version: which single-use tokens have asked for a grant."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the table; its primary key is what lets a token be spent once."""
    op.create_table(
        "tokens",
        sa.Column("issuer", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("grant_id", sa.Text, sa.ForeignKey("grants.id", name="a_token_is_spent_on_a_grant"), nullable=False),
        sa.Column("keep_until", _INSTANT, nullable=False),
    )
    op.create_index("tokens_by_end", "tokens", ["keep_until"])
