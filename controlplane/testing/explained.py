"""What a store asks PostgreSQL, and how that goes about it: the indexes it uses, and the tables it reads whole."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one question is answered."""

    indexes: frozenset[str]
    read_whole: frozenset[str]


@dataclass(frozen=True, slots=True)
class Question:
    """A statement as it went to the driver, with its values."""

    text: str
    values: Any


@contextmanager
def listening() -> Generator[list[Question]]:
    """Every SELECT that this process sends to a database while the block runs, in order."""
    heard: list[Question] = []

    def hear(connection: Connection, cursor: object, statement: str, values: object, *_: object) -> None:
        del connection, cursor
        if statement.startswith(("SELECT", "WITH")):
            heard.append(Question(statement, values))

    event.listen(Engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        event.remove(Engine, "before_cursor_execute", hear)


def explained(url: str, questions: Iterable[Question], *, whole_tables: bool = True) -> list[Plan]:
    """PostgreSQL's plan of each, not run. Without `whole_tables` it reads one whole only where no index helps."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        with engine.connect() as connection:
            if not whole_tables:
                connection.exec_driver_sql("SET enable_seqscan = off")
            return [_plan(connection, question) for question in questions]
    finally:
        engine.dispose()


def _plan(connection: Connection, question: Question) -> Plan:
    told = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {question.text}", question.values).scalar_one()
    nodes = list(_nodes(told[0]["Plan"]))
    return Plan(
        indexes=frozenset(node["Index Name"] for node in nodes if "Index Name" in node),
        read_whole=frozenset(node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"),
    )


def _nodes(plan: Mapping[str, Any]) -> Generator[Mapping[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)
