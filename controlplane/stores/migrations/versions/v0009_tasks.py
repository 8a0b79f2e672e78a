"""The ninth version: tasks, which stay finished and may be parts of others, and what a grant hangs from."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"

_INSTANT = sa.String(27).with_variant(sa.TIMESTAMP(timezone=True), "postgresql")
_FINISHED = (
    "EXISTS (SELECT 1 FROM tasks WHERE tasks.workload = NEW.workload AND tasks.id = NEW.task"
    " AND tasks.finished_at IS NOT NULL)"
)
_RULES = {
    "a_finished_task_stays_as_it_is": ("UPDATE", "tasks", "OLD.finished_at IS NOT NULL"),
    "a_task_is_never_deleted": ("DELETE", "tasks", None),
    "no_grant_begins_in_a_finished_task": ("INSERT", "grants", _FINISHED),
}
"""What no CHECK can say: when a trigger of that name refuses."""


def upgrade() -> None:
    """Make the table, with a task for all that was granted so far."""
    op.add_column("grants", sa.Column("under", sa.Text))
    _some("grants_by_what_they_hang_from", "grants", ["under"], "under IS NOT NULL")
    _some("open_grants_by_task", "grants", ["workload", "task"], "state NOT IN ('denied', 'lapsed', 'revoked')")
    op.create_table(
        "tasks",
        sa.Column("workload", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("parent", sa.Text),
        sa.Column("depth", sa.Integer, nullable=False),
        sa.Column("begun_at", _INSTANT, nullable=False),
        sa.Column("finished_at", _INSTANT),
        sa.Column("why", sa.Text),
        sa.ForeignKeyConstraint(
            ["workload", "parent"], ["tasks.workload", "tasks.id"], name="a_parent_is_a_task_of_the_same_workload"
        ),
        sa.CheckConstraint("parent IS NULL OR parent <> id", name="a_task_is_not_its_own_parent"),
        sa.CheckConstraint(
            "depth BETWEEN 1 AND 8 AND (depth = 1) = (parent IS NULL)", name="a_task_is_as_deep_as_it_may_be"
        ),
        sa.CheckConstraint("(finished_at IS NULL) = (why IS NULL)", name="a_finished_task_says_why"),
    )
    _some("tasks_by_parent", "tasks", ["workload", "parent", "begun_at"], "parent IS NOT NULL")
    op.execute(
        "INSERT INTO tasks (workload, id, depth, begun_at)"
        " SELECT workload, task, 1, min(requested_at) FROM grants GROUP BY workload, task"
    )
    if op.get_bind().dialect.name == "postgresql":
        _postgresql_rules()
    else:
        _sqlite_rules()


def _some(name: str, table: str, columns: list[str], where: str) -> None:
    some = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=some, postgresql_where=some)


def _sqlite_rules() -> None:
    for name, (moment, table, refused) in _RULES.items():
        when = f" WHEN {refused}" if refused else ""
        op.execute(f"CREATE TRIGGER {name} BEFORE {moment} ON {table}{when} BEGIN SELECT RAISE(ABORT, '{name}'); END")


def _postgresql_rules() -> None:
    for name, (moment, table, refused) in _RULES.items():
        op.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            f" IF {refused or 'true'} THEN"
            f" RAISE EXCEPTION '{name}' USING ERRCODE = 'check_violation', CONSTRAINT = '{name}'; END IF;"
            " RETURN NEW; END $$"
        )
        op.execute(f"CREATE TRIGGER {name} BEFORE {moment} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")
