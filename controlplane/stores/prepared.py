"""Statements compiled once: on the path of every grant SQLAlchemy's work per execution outweighs SQLite's own."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Select, Update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

Values = Mapping[str, Any]
Statement = Insert | Update | Select[*tuple[Any, ...]]


class Prepared:
    """One statement in one dialect, run on the driver's own cursor; values are bound as their columns' types say."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        self._statement, self._dialect = statement, dialect
        self._forms: dict[tuple[str, ...], _Form] = {}

    def run(self, connection: Connection, values: Values) -> int:
        """How many rows one execution touched. Raises: DBAPIError, as SQLAlchemy does."""
        form = self._form(values)
        with self._wrapping():
            cursor = connection.connection.cursor()
            cursor.execute(form.sql, form.bound(values))
            return cursor.rowcount

    def run_all(self, connection: Connection, values: Sequence[Values]) -> None:
        """Run it for every set of values; all have the same names. Raises: DBAPIError."""
        form = self._form(values[0])
        with self._wrapping():
            connection.connection.cursor().executemany(form.sql, [form.bound(each) for each in values])

    def first(self, connection: Connection, values: Values) -> Sequence[Any] | None:
        """The first row that it finds, as the driver gives it. Raises: DBAPIError."""
        form = self._form(values)
        with self._wrapping():
            cursor = connection.connection.cursor()
            cursor.execute(form.sql, form.bound(values))
            return cursor.fetchone()

    def _form(self, values: Values) -> "_Form":
        names = tuple(values)
        form = self._forms.get(names)
        if form is None:
            form = self._forms[names] = _Form(self._statement, self._dialect, names)
        return form

    @contextmanager
    def _wrapping(self) -> Generator[None]:
        driver = self._dialect.loaded_dbapi
        try:
            yield
        except driver.IntegrityError as error:
            raise IntegrityError(None, None, error) from None
        except driver.DataError as error:
            raise DataError(None, None, error) from None
        except driver.Error as error:
            raise DBAPIError(None, None, error) from None


class _Form:
    """The statement for one set of names."""

    def __init__(self, statement: Statement, dialect: Dialect, names: Sequence[str]) -> None:
        compiled = statement.compile(dialect=dialect, column_keys=list(names))
        self.sql = str(compiled)
        binders = {
            name: bind.type.dialect_impl(dialect).bind_processor(dialect) for name, bind in compiled.binds.items()
        }
        self._binders = [(name, binder) for name, binder in binders.items() if binder is not None]

    def bound(self, values: Values) -> dict[str, Any]:
        return {**values, **{name: bind(values[name]) for name, bind in self._binders}}
