"""The sixth version: reviews of broken glass, and how far each sink was told of the audit chain."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
_OPEN = sa.text("closed_at IS NULL")
_RULES = {
    "a_closed_review_never_changes": ("UPDATE", "OLD.closed_at IS NOT NULL"),
    "a_review_is_never_deleted": ("DELETE", None),
}
"""What no CHECK can say: when a trigger of that name refuses."""


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "reviews",
        sa.Column("grant_id", sa.Text, sa.ForeignKey("grants.id", name="a_review_is_of_a_grant"), primary_key=True),
        sa.Column("issuer", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("person", sa.Text),
        sa.Column("workload", sa.Text, nullable=False),
        sa.Column("opened_at", _INSTANT, nullable=False),
        sa.Column("closed_at", _INSTANT),
        sa.Column("closed_by_issuer", sa.Text),
        sa.Column("closed_by_subject", sa.Text),
        sa.Column("closed_by_person", sa.Text),
        sa.Column("note", sa.Text),
        sa.CheckConstraint(
            "(closed_at IS NULL) = (closed_by_issuer IS NULL) AND (closed_at IS NULL) = (closed_by_subject IS NULL)"
            " AND (closed_at IS NULL) = (note IS NULL) AND (closed_at IS NOT NULL OR closed_by_person IS NULL)",
            name="a_closed_review_says_by_whom_and_what_he_found",
        ),
        sa.CheckConstraint(
            "closed_by_subject IS NULL OR closed_by_subject <> subject", name="a_review_is_closed_by_somebody_else"
        ),
    )
    op.create_index(
        "open_reviews_by_age", "reviews", ["opened_at", "grant_id"], sqlite_where=_OPEN, postgresql_where=_OPEN
    )
    op.create_table(
        "review_names",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("grant_id", sa.Text, sa.ForeignKey("reviews.grant_id", name="a_name_is_of_a_review"), nullable=False),
    )
    op.create_index("review_names_by_grant", "review_names", ["grant_id"])
    op.create_table(
        "sink_cursors",
        sa.Column("sink", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", _INSTANT, nullable=False),
        sa.Column("held_until", _INSTANT),
        sa.CheckConstraint("seq >= 0", name="a_cursor_stands_in_the_chain"),
    )
    if op.get_bind().dialect.name == "postgresql":
        _postgresql_rules()
    else:
        _sqlite_rules()


def _sqlite_rules() -> None:
    for name, (moment, refused) in _RULES.items():
        when = f" WHEN {refused}" if refused else ""
        op.execute(f"CREATE TRIGGER {name} BEFORE {moment} ON reviews{when} BEGIN SELECT RAISE(ABORT, '{name}'); END")


def _postgresql_rules() -> None:
    for name, (moment, refused) in _RULES.items():
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {refused or 'true'} THEN"
            f" RAISE EXCEPTION '{name}' USING ERRCODE = 'check_violation', CONSTRAINT = '{name}'; END IF;"
            " RETURN NEW; END $$"
        )
        op.execute(f"CREATE TRIGGER {name} BEFORE {moment} ON reviews FOR EACH ROW EXECUTE FUNCTION {name}()")
