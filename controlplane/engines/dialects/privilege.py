"""One privilege as people write it: `select (id, status) on table billing.invoices`. Parsed, never pasted."""

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

_NAME = r'(?:[a-z_][a-z0-9_]{0,62}|"[A-Za-z0-9_ .-]{1,63}")'
_SHAPE = re.compile(
    rf"(?P<verb>[a-z]+)(?: ?\((?P<columns> ?{_NAME}(?: ?, ?{_NAME})* ?)\))?"
    rf" on (?P<kind>[a-z]+) (?P<schema>{_NAME})\.(?P<name>{_NAME})",
    re.ASCII,
)
_ALLOWED = {
    "table": ("select", "insert", "update", "delete"),
    "sequence": ("usage", "select"),
}
_WITH_COLUMNS = ("select", "insert", "update")
_SYSTEM = re.compile(r"pg_.*|information_schema", re.IGNORECASE)

# What people try first, and what they are told; the grammar has refused it already when this is looked at.
_HINTS: tuple[tuple[str, str], ...] = (
    (r"[;$'\\]|--|/\*", "is not SQL: write one privilege, without punctuation of SQL"),
    (r"\bgrant option\b", "cannot pass a privilege on: nobody gets a grant option"),
    (r"^\s*grant\b", "leaves out the word GRANT: write what is granted, as in `select on table sales.orders`"),
    (r"\bpublic\b(?!\s*\.)", "names no grantee: the credential's own user gets it, never PUBLIC"),
    (r"^\s*all\b|\ball (tables|sequences)\b", "has to name each verb and each table: ALL is more than a task needs"),
    (r"\*", "has no wildcards: name each table and each column"),
    (r"\b(superuser|createrole|createdb|bypassrls|replication|member)\b", "is on data, never a power of a role"),
    (r"^\s*(create|drop|alter|truncate|references|trigger|maintain|execute|connect|temporary|set)\b",
     "may read and write rows only: select, insert, update, delete"),
    (r"^\s*[a-z]+\s*,", "holds one verb: write a line for each, so that a review sees each come and go"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Privilege:
    """A verb on a table or sequence, `columns` empty where it is on the whole table. Names are not quoted."""

    verb: str
    columns: tuple[str, ...]
    kind: str
    schema: str
    name: str

    def __str__(self) -> str:
        """The one spelling of it: lower case, one space, columns in order."""
        columns = f" ({', '.join(_spelled(column) for column in self.columns)})" if self.columns else ""
        return f"{self.verb}{columns} on {self.kind} {_spelled(self.schema)}.{_spelled(self.name)}"


def parse(text: str) -> Privilege:
    """The privilege that `text` says.

    Raises: ValueError: with what to write instead.
    """
    shape = _SHAPE.fullmatch(_folded(text.strip(" ")))
    if shape is None:
        raise ValueError(
            _hint(text) or "write it as `select on table schema.name` or `update (column) on table schema.name`"
        )
    verb, kind = shape["verb"], shape["kind"]
    if verb not in _ALLOWED.get(kind, ()):
        known = "; ".join(f"on a {kind}: {', '.join(verbs)}" for kind, verbs in _ALLOWED.items())
        raise ValueError(_hint(text) or f"there is no {verb} on {kind}, but {known}")
    columns = _columns(shape["columns"])
    if columns and (kind != "table" or verb not in _WITH_COLUMNS):
        raise ValueError(f"{verb} on a {kind} is never by column")
    schema, name = _plain(shape["schema"]), _plain(shape["name"])
    if _SYSTEM.fullmatch(schema):
        raise ValueError(f"{schema} belongs to the database itself: nobody is let into it")
    return Privilege(verb=verb, columns=columns, kind=kind, schema=schema, name=name)


def _hint(text: str) -> str | None:
    return next((f"a privilege {hint}" for pattern, hint in _HINTS if re.search(pattern, text, re.IGNORECASE)), None)


def _columns(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    columns = [_plain(column) for column in re.findall(_NAME, text)]
    if len(set(columns)) < len(columns):
        raise ValueError("a column is named twice")
    return tuple(sorted(columns))


def _folded(text: str) -> str:
    """Lower case and single spaces, but not within quotes: so does SQL, and `Sales.Orders` is the table people mean."""
    parts = re.split(r'("[^"]*")', text)
    return "".join(part if part.startswith('"') else re.sub(r" +", " ", part).lower() for part in parts)


def _plain(name: str) -> str:
    return name[1:-1] if name.startswith('"') else name


def _spelled(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else f'"{name}"'


PrivilegeText = Annotated[
    str,
    AfterValidator(lambda text: str(parse(text))),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[A-Za-z]+( *\(.*\))? +on +(table|sequence) +\S.*$",
            "examples": ["select on table billing.invoices", "update (status) on table billing.invoices"],
        }
    ),
]
"""A privilege in a document: text, in its one spelling."""
