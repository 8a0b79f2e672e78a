"""The thirteenth version: what a lease of a static secret ends with, as a JSON object; none where it ends otherwise."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the column; leases of before have none."""
    op.add_column("leases", sa.Column("rotation", sa.Text))
