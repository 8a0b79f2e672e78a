"""One privilege as people write it: `select (id, status) on table billing.invoices`. Parsed, never pasted."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.model.excess import Excess, excess

_NAME = r'(?:[a-z_][a-z0-9_]{0,63}|"[A-Za-z0-9_ .-]{1,64}")'
_SHAPE = re.compile(
    rf"(?P<verb>[a-z]+)(?: ?\((?P<columns> ?{_NAME}(?: ?, ?{_NAME})* ?)\))?"
    rf" on (?P<kind>[a-z]+) (?P<schema>{_NAME})\.(?P<name>{_NAME})",
    re.ASCII,
)
_WITH_COLUMNS = ("select", "insert", "update")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What one database makes of the language: `verbs` by what they are on, and whose tables are nobody's.

    `longest` is the length of a name in it. Where it `folds`, `Sales.Orders` is `sales.orders` to it too.
    """

    verbs: Mapping[str, tuple[str, ...]]
    system: re.Pattern[str]
    longest: int
    folds: bool

    @property
    def json_schema(self) -> dict[str, Any]:
        """A privilege of it in an editor's schema."""
        return {
            "type": "string",
            "pattern": rf"^[A-Za-z]+( *\(.*\))? +on +({'|'.join(self.verbs)}) +\S.*$",
            "examples": ["select on table billing.invoices", "update (status) on table billing.invoices"],
        }


# What people try first, and what they are told; the grammar has refused it already when this is looked at.
_HINTS: tuple[tuple[str, Excess | None, str], ...] = (
    (r"[;$'\\]|--|/\*", "raw", "is not SQL: write one privilege, without punctuation of SQL"),
    (r"\bgrant option\b", "grant-option", "cannot pass a privilege on: nobody gets a grant option"),
    (r"\b(member|inherit)\b(?=\s+of\b)|^\s*(grant\s+)?(role|\w+\s+to)\b", "role",
     "is on data, never a power of a role: nobody becomes another role's member"),
    (r"^\s*grant\b", None, "leaves out the word GRANT: write what is granted, as in `select on table sales.orders`"),
    (r"\bpublic\b(?!\s*\.)", "public", "names no grantee: the credential's own user gets it, never PUBLIC"),
    (r"^\s*all\b|\ball (tables|sequences)\b", "all",
     "has to name each verb and each table: ALL is more than a task needs"),
    (r"\*", "wildcard", "has no wildcards: name each table and each column"),
    (r"\b(superuser|createrole|createdb|bypassrls|replication)\b", "superuser", "is on data, never a power of a role"),
    (r"^\s*(create|drop|alter|truncate|references|trigger|maintain|execute|connect|temporary|set)\b", "ddl",
     "may read and write rows only: select, insert, update, delete"),
    (r"^\s*[a-z]+\s*,", None, "holds one verb: write a line for each, so that a review sees each come and go"),
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


def parse(text: str, grammar: Grammar) -> Privilege:
    """The privilege that `text` says.

    Raises: ValueError: with what to write instead.
    """
    written = _spaced(text.strip(" "))
    folded = _folded(written)
    shape = _SHAPE.fullmatch(folded)
    if shape is None:
        raise _refused(text, "write it as `select on table schema.name` or `update (column) on table schema.name`")
    verb, kind = shape["verb"], shape["kind"]
    if verb not in grammar.verbs.get(kind, ()):
        known = "; ".join(f"on a {kind}: {', '.join(verbs)}" for kind, verbs in grammar.verbs.items())
        raise _refused(text, f"there is no {verb} on {kind}, but {known}")
    columns = _columns(shape["columns"])
    if columns and (kind != "table" or verb not in _WITH_COLUMNS):
        raise ValueError(f"{verb} on a {kind} is never by column")
    schema, name = _plain(shape["schema"]), _plain(shape["name"])
    if grammar.system.fullmatch(schema):
        raise excess("system", f"{schema} belongs to the database itself: nobody is let into it")
    if too_long := [part for part in (schema, name, *columns) if len(part) > grammar.longest]:
        raise ValueError(f"{too_long[0]} is longer than the {grammar.longest} characters of a name")
    named = [slice(*shape.span(part)) for part in ("columns", "schema", "name") if shape[part] is not None]
    if not grammar.folds and any(written[part] != folded[part] for part in named):
        raise ValueError('capitals in names count here: write such a name in double quotes, as in "Sales"."Orders"')
    return Privilege(verb=verb, columns=columns, kind=kind, schema=schema, name=name)


def distinct(privileges: tuple[str, ...]) -> tuple[str, ...]:
    """The same lines. Raises: ValueError: one of them twice."""
    if len(set(privileges)) < len(privileges):
        raise ValueError("a privilege is named twice")
    return privileges


def doubts(privileges: Iterable[Privilege]) -> Iterator[str]:
    """What opens more than its words seem to say, for `Scope.doubts`."""
    for each in privileges:
        if each.verb == "update" and not each.columns:
            yield f"update on {each.schema}.{each.name} changes every column: name those that the task changes"


def sentence(privilege: Privilege, verbs: Mapping[str, str], connection: str) -> str:
    """What a privilege lets one do, for a reviewer; `verbs` are those of the grammar in plain words."""
    columns = f"({', '.join(privilege.columns)}) of " if privilege.columns else ""
    return f"may {verbs[privilege.verb]} {columns}{privilege.schema}.{privilege.name} in {connection}"


def _refused(text: str, otherwise: str) -> ValueError:
    """What to tell whoever wrote `text`: `otherwise` where it is none of what people try first."""
    for pattern, kind, hint in _HINTS:
        if re.search(pattern, text, re.IGNORECASE):
            return excess(kind, f"a privilege {hint}") if kind else ValueError(f"a privilege {hint}")
    return ValueError(otherwise)


def _columns(text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    columns = [_plain(column) for column in re.findall(_NAME, text)]
    if len(set(columns)) < len(columns):
        raise ValueError("a column is named twice")
    return tuple(sorted(columns))


def _spaced(text: str) -> str:
    """Single spaces, but not within quotes."""
    return _unquoted(text, lambda part: re.sub(r" +", " ", part))


def _folded(text: str) -> str:
    """Lower case, but not within quotes: so does SQL, and `Sales.Orders` is the table people mean."""
    return _unquoted(text, str.lower)


def _unquoted(text: str, change: Callable[[str], str]) -> str:
    parts = re.split(r'("[^"]*")', text)
    return "".join(part if part.startswith('"') else change(part) for part in parts)


def _plain(name: str) -> str:
    return name[1:-1] if name.startswith('"') else name


def _spelled(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else f'"{name}"'
