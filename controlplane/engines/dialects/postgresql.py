"""PostgreSQL (16 and later): privileges on a group role, a login that is its member, and an end that ends sessions.

Vault fills `{{name}}`, `{{password}}` and `{{expiration}}` in, runs all entries of a list of statements in one
transaction, and splits an entry at `;` unless it contains the word END. Every other value in these texts was
parsed (privilege.py) or is a name of ours; nothing is pasted.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from re import Pattern
from typing import Annotated, ClassVar, Final, Literal, cast

from pydantic import AfterValidator, Field, WithJsonSchema
from typing_extensions import override

from controlplane.engines.dialects import DatabaseScope, Statements, TargetOptions
from controlplane.engines.dialects.terms import privilege
from controlplane.engines.dialects.terms.group import Group
from controlplane.engines.dialects.terms.privilege import Grammar, Privilege, distinct, sentence
from controlplane.model.canonical import canonical
from controlplane.model.entitlement import Placing
from controlplane.model.parameter import VALUE

EXAMPLE = """\
name: orders
engine: database
connection: orders
privileges:
  - select on table billing.invoices
  - update (status) on table billing.invoices
"""

GRAMMAR: Final = Grammar(
    verbs={"table": ("select", "insert", "update", "delete"), "sequence": ("usage", "select")},
    system=re.compile(r"pg_.*|information_schema", re.IGNORECASE),
    longest=63,
    folds=True,
)

_VERBS: Final = {
    "select": "read",
    "insert": "add rows to",
    "update": "change",
    "delete": "delete rows of",
    "usage": "draw numbers from",
}

# A number that all control planes agree on: creators of group roles wait for each other, because two GRANTs on
# one table at the same time fail with "tuple concurrently updated".
_LOCK = int.from_bytes(hashlib.sha256(b"shorthold group roles").digest()[:8], signed=True)

# The commit waits for the disk: a login that a crash took half a second later would leave its grant active. A random
# password needs no stretching, and SCRAM's 4096 rounds would cost more than everything else together. The login
# inherits the group's privileges but cannot become it (SET FALSE), so that nothing it makes is the group's. Whoever
# makes a new revision's group also drops those of older revisions that have no member left, so that they do not pile
# up: the self-grant lets the management user do that. It gets none of the logins, although their revocation may need
# one: PostgreSQL goes through all roles that somebody is a member of whenever he makes, changes or drops one, and
# with a self-grant of each login, two thousand of them made the next one several times as slow.
_CREATION = """DO $shorthold$
DECLARE
  stale name;
BEGIN
  SET LOCAL createrole_self_grant = '';
  SET LOCAL scram_iterations = 1;
  <rows>FOR attempt IN 1..2 LOOP
    EXIT WHEN EXISTS (
      SELECT FROM pg_catalog.pg_roles WHERE rolname = '<group>'
        AND <checks>
    );
    IF attempt = 2 THEN
      RAISE EXCEPTION 'role % may not grant all that % needs: it lacks a grant option', current_user, '<group>';
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock(<lock>);
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '<group>') THEN
      SET LOCAL createrole_self_grant = 'set, inherit';
      CREATE ROLE "<group>" NOLOGIN;
      SET LOCAL createrole_self_grant = '';
    END IF;
    IF NOT pg_catalog.has_database_privilege('<group>', current_database(), 'CONNECT') THEN
      EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), '<group>');
    END IF;
    <grants>
    FOR stale IN
      SELECT old.rolname FROM pg_catalog.pg_roles AS old
      WHERE old.rolname ~ '<siblings>' AND old.rolname <> '<group>' AND NOT old.rolcanlogin AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_auth_members AS held JOIN pg_catalog.pg_roles AS holder ON holder.oid = held.member
        WHERE held.roleid = old.oid AND holder.rolname <> current_user
      )
    LOOP
      BEGIN
        EXECUTE pg_catalog.format('DROP OWNED BY %1$I; DROP ROLE %1$I', stale);
      EXCEPTION
        WHEN OTHERS THEN
          NULL; -- it stays, and opens nothing to anybody
      END;
    END LOOP;
  END LOOP;
  IF EXISTS (
    SELECT FROM pg_catalog.pg_auth_members AS held JOIN pg_catalog.pg_roles AS mine ON mine.oid = held.member
    WHERE mine.rolname = '<group>'
  ) THEN
    RAISE EXCEPTION 'role % is a member of another one: somebody gave it more than its entitlement says', '<group>';
  END IF;
END $shorthold$;
CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT <sessions>;
GRANT "<group>" TO "{{name}}" WITH INHERIT TRUE, SET FALSE"""

# Which rows are its own stands in the comment of the login: nobody can change that but who made it, and it goes with
# the login. A setting would not do, for everybody may set his own. Row security is the owner's of each table; a table
# where it is off, or where a policy lets rows through without asking, is a table that is not narrowed: then nobody
# gets a login. A policy for other roles than ours is none of our business.
_ROWS = """IF EXISTS (
    SELECT FROM pg_catalog.pg_class AS held WHERE held.oid IN (<tables>) AND (
      NOT held.relrowsecurity OR EXISTS (
        SELECT FROM pg_catalog.pg_policy AS says WHERE says.polrelid = held.oid AND says.polpermissive
          AND (0::oid = ANY (says.polroles) OR EXISTS (
            SELECT FROM pg_catalog.pg_roles WHERE rolname = '<group>' AND oid = ANY (says.polroles)
          ))
          AND NOT (<asks>)
      )
    )
  ) THEN
    RAISE EXCEPTION 'a table of % lets rows through that are not narrowed to <names>', '<group>';
  END IF;
  """
_ASKS = """position('row_value(''<name>''::text)' IN coalesce(
            pg_catalog.pg_get_expr(says.polqual, says.polrelid),
            pg_catalog.pg_get_expr(says.polwithcheck, says.polrelid)
          )) > 0"""
_COMMENT = """;
COMMENT ON ROLE "{{name}}" IS '<rows>'"""

# The same settings, for the same reasons.
_PROBER: Final = (
    "SET LOCAL createrole_self_grant = ''",
    "SET LOCAL scram_iterations = 1",
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT 10",
)

RENEWAL = """ALTER ROLE "{{name}}" VALID UNTIL '{{expiration}}'"""

# First nobody can log in any more, and that is committed before anything else is tried: what the login left
# behind may keep it from being dropped, but never keeps it open. Whoever holds a lock on his own row (ALTER ROLE
# CURRENT_USER in an open transaction) or comes back at once is ended again until the change goes through.
# Then sessions end, and only then is dropped what nobody can use. A login that is gone already is fine.
#
# Without clearing the snapshot, a transaction sees the sessions that there were when it first looked. A connection
# that was let in just before NOLOGIN is nobody's session yet, but holds a transaction: it is given 200 ms to become
# one. Should it take longer, what it gets is a session without a role, which every later revocation here ends.
REVOCATION = """DO $shorthold$
DECLARE
  who CONSTANT oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = '{{name}}');
BEGIN
  SET LOCAL synchronous_commit = off; -- the second commit waits for the disk, for both
  SET LOCAL lock_timeout = '200ms';
  FOR attempt IN 1..25 LOOP
    EXIT WHEN who IS NULL;
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_get_activity(NULL) WHERE usesysid = who;
    BEGIN
      ALTER ROLE "{{name}}" NOLOGIN;
      EXIT;
    EXCEPTION
      WHEN undefined_object THEN
        EXIT; -- dropped by somebody else just now
      WHEN lock_not_available OR internal_error THEN -- the latter is "tuple concurrently updated"
        IF attempt = 25 THEN
          RAISE;
        END IF;
    END;
  END LOOP;
END $shorthold$;
COMMIT AND CHAIN;
DO $shorthold$
DECLARE
  who CONSTANT oid := (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = '{{name}}');
  holder name;
BEGIN
  SET LOCAL lock_timeout = '5s';
  FOR attempt IN 1..1000 LOOP
    PERFORM pg_catalog.pg_stat_clear_snapshot();
    PERFORM pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_get_activity(NULL)
      WHERE usesysid = who OR usesysid NOT IN (SELECT oid FROM pg_catalog.pg_roles);
    EXIT WHEN NOT FOUND AND (attempt > 40 OR NOT EXISTS (
      SELECT FROM pg_catalog.pg_locks AS held LEFT JOIN pg_catalog.pg_stat_get_activity(NULL) AS known USING (pid)
      WHERE held.locktype = 'virtualxid' AND known.usesysid IS NULL
        AND coalesce(known.backend_type, 'client backend') = 'client backend'
    ));
    PERFORM pg_catalog.pg_sleep(0.005);
  END LOOP;
  FOR holder IN -- of what it owns, or was given by another login: only who inherits from them may drop that
    SELECT DISTINCT pg_catalog.pg_get_userbyid(owned.refobjid)
    FROM pg_catalog.pg_shdepend AS its JOIN pg_catalog.pg_shdepend AS owned USING (dbid, classid, objid)
      JOIN pg_catalog.pg_auth_members AS held ON held.roleid = owned.refobjid AND held.admin_option
    WHERE its.refclassid = 'pg_catalog.pg_authid'::regclass AND its.refobjid = who
      AND owned.refclassid = its.refclassid AND (owned.deptype = 'o' OR owned.refobjid = who)
      AND held.member = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user)
  LOOP
    EXECUTE pg_catalog.format('GRANT %I TO CURRENT_USER WITH INHERIT TRUE, SET FALSE', holder);
  END LOOP;
  IF FOUND THEN
    DROP OWNED BY "{{name}}";
  END IF;
  IF who IS NOT NULL THEN
    DROP ROLE "{{name}}";
  END IF;
END $shorthold$"""


def parse(text: str) -> Privilege:
    """The privilege that `text` says. Raises: ValueError: with what to write instead."""
    return privilege.parse(text, GRAMMAR)


_RAW: Final = re.compile(r"GRANT [A-Za-z0-9_ ,.()\"]+ ON [A-Za-z0-9_ ,.()\"\[\]]+", re.ASCII)
_NEVER: Final = re.compile(
    r"\b(all|public|grant option|admin|superuser|createrole|createdb|replication|bypassrls|pg_\w*|information_schema)\b"
)


def _raw(text: str) -> str:
    """What one GRANT says before its TO, which is ours; in characters that end nothing.

    Raises: ValueError: with what to write instead.
    """
    said = " ".join(text.split())
    words = said.lower().replace('"', " ").split()
    once = all(words.count(word) == 1 for word in ("grant", "on"))
    if not _RAW.fullmatch(said) or not once or "to" in words or said.count('"') % 2:
        raise ValueError("write what one GRANT says before TO, as in GRANT EXECUTE ON FUNCTION billing.refund(integer)")
    if found := _NEVER.search(" ".join(words)):
        raise ValueError(f"no exception opens {found[0]!r}: name each right and each thing")
    return said


RowName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
RowValue = Annotated[str, Field(pattern=VALUE)]
PrivilegeText = Annotated[str, AfterValidator(lambda text: str(parse(text))), WithJsonSchema(GRAMMAR.json_schema)]
"""A privilege in a document: text, in its one spelling."""


class PostgresqlScope(DatabaseScope):
    """Rows of named tables in PostgreSQL."""

    privileges: Annotated[tuple[PrivilegeText, ...], AfterValidator(distinct)] = Field(
        min_length=1, max_length=64, description="What the login may do: verbs on tables and sequences, one a line."
    )
    sessions: int = Field(default=5, ge=1, le=100, strict=True, description="How many may be open at once.")
    rows: dict[RowName, RowValue] = Field(
        default={},
        max_length=8,
        description="Only rows of these, by row security of the tables' owner.",
        json_schema_extra={"additionalProperties": False},
    )

    raw: tuple[Annotated[str, Field(max_length=500), AfterValidator(_raw)], ...] = Field(
        default=(),
        max_length=8,
        description="What no privilege can say, as GRANT … ON …, to nobody but this login; with a dated exception.",
    )

    narrows: ClassVar[Mapping[str, Placing]] = {"rows": Placing.PART}

    @property
    @override
    def verbatim(self) -> tuple[str, ...]:
        """Its raw statements."""
        return self.raw

    @property
    def parsed(self) -> tuple[Privilege, ...]:
        """The privileges as values, in one order whatever the order of the lines was."""
        return tuple(parse(text) for text in sorted(self.privileges))

    @override
    def given(self) -> frozenset[str] | None:
        """Its privileges, column by column, with the schemas; what a raw statement gives nobody has read."""
        if self.raw:
            return None
        schemas = {f"usage on schema {each.schema}" for each in self.parsed}
        return frozenset(schemas).union(
            f"{each.verb}{f' ({column})' if column else ''} on {each.kind} {each.schema}.{each.name}"
            for each in self.parsed
            for column in each.columns or ("",)
        )

    @property
    @override
    def own_clock(self) -> bool:
        """`VALID UNTIL`: no new session after it."""
        return True

    @override
    def doubts(self) -> Iterator[str]:
        """Updates of whole rows."""
        yield from privilege.doubts(self.parsed)


class PostgresqlOptions(TargetOptions):
    """Which database, and how the line to it is encrypted."""

    port: int = Field(default=5432, ge=1, le=65535)
    database: str
    sslmode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"


@dataclass(frozen=True, slots=True)
class Postgresql:
    """Source: OpenBao docs, api/secret/databases/postgresql."""

    word: str = "postgresql"
    plugins: frozenset[str] = frozenset({"postgresql-database-plugin"})
    scope_model: type[DatabaseScope] = PostgresqlScope
    options: type[TargetOptions] = PostgresqlOptions
    example: str = EXAMPLE
    usernames: Pattern[str] = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)

    def statements(self, scope: DatabaseScope, group: Group, *, maximum: timedelta) -> Statements:
        """A member of the group role, with an end that PostgreSQL keeps."""
        del maximum  # VALID UNTIL moves with the lease
        wanted = _own(scope)
        return Statements(
            creation=[creation(group, wanted.parsed, sessions=wanted.sessions, rows=wanted.rows, raw=wanted.raw)],
            renewal=[RENEWAL],
            revocation=[REVOCATION],
        )

    def prober(self) -> Statements:
        """Every login may read who is there."""
        return Statements(creation=_PROBER, renewal=[RENEWAL], revocation=[REVOCATION])

    def reach(self, scope: DatabaseScope) -> Sequence[str]:
        """A sentence for each privilege."""
        wanted = _own(scope)
        of = " and ".join(f"{name} {value}" for name, value in sorted(wanted.rows.items()))
        only = f", in rows of {of} only" if of else ""
        said = ((each, sentence(each, _VERBS, wanted.connection)) for each in wanted.parsed)
        return [
            *(text + only if each.kind == "table" else text for each, text in said),
            *(f"{statement}, word for word, in {wanted.connection}" for statement in sorted(wanted.raw)),
        ]


def creation(
    group: Group,
    privileges: Iterable[Privilege],
    *,
    sessions: int,
    rows: Mapping[str, str] | None = None,
    raw: Iterable[str] = (),
) -> str:
    """Make the group role where it is missing or lacks something, then the login: one text, one round trip.

    `sessions` is how many connections the login may have at once, `rows` to which rows of its tables it is narrowed.
    `raw` are further grants, made with the group and not looked at again.
    """
    granted = sorted(set(privileges), key=str)
    parts = {
        "<group>": group.name,
        "<siblings>": group.siblings,
        "<lock>": str(_LOCK),
        "<checks>": "\n        AND ".join(_checks(granted)),
        "<grants>": "\n    ".join(
            (
                *(f'GRANT {what} TO "{group.name}";' for what in _grants(granted)),
                *(f'{statement} TO "{group.name}";' for statement in sorted(raw)),
            )
        ),
        "<sessions>": str(sessions),
    }
    text = _CREATION.replace("<rows>", _narrowed(granted, rows) if rows else "")
    text += _COMMENT.replace("<rows>", canonical({**rows}).decode()) if rows else ""
    for placeholder, part in parts.items():
        text = text.replace(placeholder, part)
    return text


def _narrowed(privileges: list[Privilege], rows: Mapping[str, str]) -> str:
    """The check that row security narrows every table to `rows`; names and values are letters, digits, _ and -."""
    tables = sorted({f"'{_relation(each)}'::regclass" for each in privileges if each.kind == "table"})
    parts = {
        "<tables>": ", ".join(tables) or "NULL",
        "<asks>": " AND ".join(_ASKS.replace("<name>", name) for name in sorted(rows)),
        "<names>": " and ".join(sorted(rows)),
    }
    text = _ROWS
    for placeholder, part in parts.items():
        text = text.replace(placeholder, part)
    return text


def _grants(privileges: list[Privilege]) -> Iterator[str]:
    for schema in sorted({each.schema for each in privileges}):
        yield f"USAGE ON SCHEMA {_quoted(schema)}"
    for each in privileges:
        columns = f" ({', '.join(map(_quoted, each.columns))})" if each.columns else ""
        yield f"{each.verb.upper()}{columns} ON {each.kind.upper()} {_relation(each)}"


def _checks(privileges: list[Privilege]) -> Iterator[str]:
    """Whether the group role still has all of it: a table that was made anew has lost its grants."""
    yield "pg_catalog.has_database_privilege(oid, current_database(), 'CONNECT')"
    for schema in sorted({each.schema for each in privileges}):
        yield f"pg_catalog.has_schema_privilege(oid, '{schema}', 'USAGE')"
    for each in privileges:
        relation, verb = _relation(each), each.verb.upper()
        if each.columns:
            for column in each.columns:
                yield f"pg_catalog.has_column_privilege(oid, '{relation}', '{column}', '{verb}')"
        else:
            yield f"pg_catalog.has_{each.kind}_privilege(oid, '{relation}', '{verb}')"


def _own(scope: DatabaseScope) -> PostgresqlScope:
    return cast("PostgresqlScope", scope)


def _relation(each: Privilege) -> str:
    return f"{_quoted(each.schema)}.{_quoted(each.name)}"


def _quoted(name: str) -> str:
    # The grammar of names lets no quote, backslash, dollar, brace or semicolon through.
    return f'"{name}"'


DIALECT = Postgresql()
