"""Statements compiled once: on the path of every grant SQLAlchemy's work per execution outweighs SQLite's own."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Insert, Select, Update
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError, IntegrityError

Values = Mapping[str, Any]
Statement = Insert | Update | Select[*tuple[Any, ...]]


class Prepared:
    """One statement in one dialect, run on the driver's own cursor; values are bound as their columns' types say."""

    def __init__(self, statement: Statement, dialect: Dialect) -> None:
        self._statement, self._dialect = statement, dialect
        self._forms: dict[tuple[str, ...], _Form] = {}

    def run(self, connection: Connection, values: Values) -> DBAPICursor:
        """The cursor after one execution. Raises: DBAPIError, as SQLAlchemy does."""
        form = self._form(values)
        cursor = connection.connection.cursor()
        try:
            cursor.execute(form.sql, form.bound(values))
        except self._dialect.loaded_dbapi.Error as error:
            raise self._wrapped(error) from None
        return cursor

    def run_all(self, connection: Connection, values: Sequence[Values]) -> None:
        """Run it for every set of values; all have the same names. Raises: DBAPIError."""
        form = self._form(values[0])
        try:
            connection.connection.cursor().executemany(form.sql, [form.bound(each) for each in values])
        except self._dialect.loaded_dbapi.Error as error:
            raise self._wrapped(error) from None

    def _form(self, values: Values) -> "_Form":
        names = tuple(values)
        form = self._forms.get(names)
        if form is None:
            form = self._forms[names] = _Form(self._statement, self._dialect, names)
        return form

    def _wrapped(self, error: Exception) -> DBAPIError:
        refused = isinstance(error, self._dialect.loaded_dbapi.IntegrityError)
        return (IntegrityError if refused else DBAPIError)(None, None, error)


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
