"""The twelfth version: cuts, the previews that they name, and what each is of."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "previews",
        sa.Column("digest", sa.Text, primary_key=True),
        sa.Column("selection", sa.Text, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("selected", sa.Integer, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
    )
    op.create_table(
        "cuts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("incident", sa.Text, nullable=False),
        sa.Column("selection", sa.Text, nullable=False),
        sa.Column(
            "digest", sa.Text, sa.ForeignKey("previews.digest", name="a_cut_was_previewed"), nullable=False, unique=True
        ),
        sa.Column("previewed_at", _INSTANT, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("freeze", sa.Text),
        sa.Column("ordered_at", _INSTANT, nullable=False),
        sa.Column("ended_at", _INSTANT),
        sa.CheckConstraint("ended_at IS NULL OR ended_at >= ordered_at", name="a_cut_ends_after_it_was_ordered"),
    )
    op.create_index("cuts_by_age", "cuts", ["ordered_at", "id"])
    runs = sa.text("ended_at IS NULL")
    op.create_index("cuts_that_run", "cuts", ["ordered_at"], sqlite_where=runs, postgresql_where=runs)
    op.create_table(
        "cut_items",
        sa.Column("cut_id", sa.Text, sa.ForeignKey("cuts.id", name="an_item_is_of_a_cut"), primary_key=True),
        sa.Column("grant_id", sa.Text, sa.ForeignKey("grants.id", name="an_item_is_a_grant"), primary_key=True),
    )
