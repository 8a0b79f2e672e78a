"""The eleventh version: the values to which a grant is narrowed, as a JSON object; none where it has no parameters."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column; grants of before have none."""
    op.add_column("grants", sa.Column("parameters", sa.Text))
