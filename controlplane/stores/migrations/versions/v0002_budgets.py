"""The second version: open grants can be counted by entitlement and workload without looking at those that ended."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the index."""
    some = sa.text("state NOT IN ('denied', 'lapsed', 'revoked')")
    op.create_index(
        "open_grants_by_entitlement",
        "grants",
        ["entitlement", "workload"],
        sqlite_where=some,
        postgresql_where=some,
    )
