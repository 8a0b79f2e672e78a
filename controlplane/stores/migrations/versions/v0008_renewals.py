"""The eighth version: when the next beat has to come, and how far a renewal that is under way would reach."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Add the columns; grants of before need no beat."""
    for column in ("heartbeat_due_at", "renewing_to", "renewing_by"):
        op.add_column("grants", sa.Column(column, _INSTANT))
