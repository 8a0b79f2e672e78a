"""MariaDB (10.6 and later): privileges on the login itself, a clock that ends it, and an end that ends sessions.

There is no group role: a login would have to switch to it by itself, because making it the default one of somebody
else takes write access to the tables of accounts (docs/adr/0022). The text of every statement is a JSON list, which
is how Vault's plugin is given statements that have semicolons in them. Vault fills `{{name}}` and `{{password}}` in;
every other value was parsed (terms/privilege.py) or is a name of ours; nothing is pasted.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from re import Pattern
from typing import Annotated, Final, Literal, cast

from pydantic import AfterValidator, Field, WithJsonSchema
from typing_extensions import override

from controlplane.engines.dialects import DatabaseScope, Statements, TargetOptions
from controlplane.engines.dialects.terms import privilege
from controlplane.engines.dialects.terms.group import Group
from controlplane.engines.dialects.terms.privilege import Grammar, Privilege, distinct, sentence

EXAMPLE: Final = """\
name: shop
engine: database
dialect: mariadb
connection: shop
privileges:
  - select on table shop.orders
  - update (status) on table shop.orders
"""

PLACE: Final = "shorthold"
"""The database that vault-config/targets/mariadb.sql makes: clocks, and what the prober may call."""

GRAMMAR: Final = Grammar(
    verbs={"table": ("select", "insert", "update", "delete")},
    system=re.compile(rf"mysql|information_schema|performance_schema|sys|{PLACE}", re.IGNORECASE),
    longest=64,
    folds=False,
)

_VERBS: Final = {"select": "read", "insert": "add rows to", "update": "change", "delete": "delete rows of"}

_AFTER: Final = timedelta(seconds=30)
"""How long after its time a login's own clock ends it: first it is Vault's turn."""

_PROBER_MAXIMUM: Final = timedelta(hours=8)

# MariaDB knows no end of an account, so an event is its clock: it is made before the login is.
_AWAKE: Final = """BEGIN NOT ATOMIC
  IF @@global.event_scheduler <> 'ON' THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'event_scheduler is not ON, so no login would have a clock';
  END IF;
END"""

# First nobody can log in any more. Then sessions end, and only then is dropped what nobody can use. Whoever is only
# trying to get in shows as `Connect`, under the name that he gives or none: the first is ended as well, the second has
# 200 ms to give one.
_END: Final = """  DECLARE tries, here INT DEFAULT 0;
  ALTER USER IF EXISTS '{{name}}'@'%' ACCOUNT LOCK;
  REPEAT
    KILL HARD USER '{{name}}'@'%';
    SET tries = tries + 1;
    SELECT COUNT(*) INTO here FROM information_schema.PROCESSLIST
      WHERE USER IN ('{{name}}', 'unauthenticated user') AND (COMMAND <> 'Connect' OR tries <= 40);
    IF here > 0 THEN
      DO SLEEP(0.005);
    END IF;
  UNTIL here = 0 OR tries = 1000 END REPEAT;
"""
_DROP: Final = "  DROP USER IF EXISTS '{{name}}'@'%';\n  KILL HARD USER '{{name}}'@'%';\n"

_CLOCK: Final = (
    f"CREATE EVENT {PLACE}.`{{{{name}}}}` ON SCHEDULE AT CURRENT_TIMESTAMP + INTERVAL <seconds> SECOND\n"
    f"COMMENT '<group>' DO BEGIN\n{_END}{_DROP}END"
)

_LOGIN: Final = "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}' WITH MAX_USER_CONNECTIONS <sessions>"

# All privileges or no login: one that has some of them is of no use to anybody.
_GRANTS: Final = """BEGIN NOT ATOMIC
  DECLARE EXIT HANDLER FOR SQLEXCEPTION
  BEGIN
    DROP USER IF EXISTS '{{name}}'@'%';
    RESIGNAL;
  END;
  <grants>
END"""

# Should a session resist for longer, Vault hears of it and tries again: the login stays, locked.
_REVOCATION: Final = f"""BEGIN NOT ATOMIC
{_END}  IF here > 0 THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'a session of the login is ending still';
  END IF;
{_DROP}END"""
_NO_CLOCK: Final = f"DROP EVENT IF EXISTS {PLACE}.`{{{{name}}}}`"


def parse(text: str) -> Privilege:
    """The privilege that `text` says. Raises: ValueError: with what to write instead."""
    return privilege.parse(text, GRAMMAR)


PrivilegeText = Annotated[str, AfterValidator(lambda text: str(parse(text))), WithJsonSchema(GRAMMAR.json_schema)]
"""A privilege in a document: text, in its one spelling."""


class MariadbScope(DatabaseScope):
    """Rows of named tables in MariaDB."""

    privileges: Annotated[tuple[PrivilegeText, ...], AfterValidator(distinct)] = Field(
        min_length=1, max_length=64, description="What the login may do: verbs on tables, one a line."
    )
    sessions: int = Field(default=5, ge=1, le=100, strict=True, description="How many may be open at once.")

    @property
    def parsed(self) -> tuple[Privilege, ...]:
        """The privileges as values, in one order whatever the order of the lines was."""
        return tuple(parse(text) for text in sorted(self.privileges))

    @property
    @override
    def own_clock(self) -> bool:
        """An event of the server locks the login and ends its sessions."""
        return True

    @override
    def doubts(self) -> Iterator[str]:
        """Updates of whole rows."""
        yield from privilege.doubts(self.parsed)


class MariadbOptions(TargetOptions):
    """How the line to it is encrypted. `off` sends what is asked in clear; the password is never sent in clear."""

    port: int = Field(default=3306, ge=1, le=65535)
    tls: Literal["verify", "off"] = "verify"
    cacert: Path | None = None


@dataclass(frozen=True, slots=True)
class Mariadb:
    """Source: OpenBao docs, api/secret/databases/mysql-maria; MariaDB docs, account management statements."""

    word: str = "mariadb"
    plugins: frozenset[str] = frozenset({"mysql-database-plugin"})
    scope_model: type[DatabaseScope] = MariadbScope
    options: type[TargetOptions] = MariadbOptions
    example: str = EXAMPLE
    usernames: Pattern[str] = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)

    def statements(self, scope: DatabaseScope, group: Group, *, maximum: timedelta) -> Statements:
        """A login with its clock. The plugin knows no renewal, so the clock is set for the longest at once."""
        wanted = cast("MariadbScope", scope)
        granted = [f"GRANT {what} TO '{{{{name}}}}'@'%';" for what in _granted(wanted.parsed)]
        return _statements(group.name, granted, sessions=wanted.sessions, maximum=maximum)

    def prober(self) -> Statements:
        """It may call two procedures that name accounts and count sessions."""
        granted = [
            f"GRANT EXECUTE ON PROCEDURE {PLACE}.{procedure} TO '{{{{name}}}}'@'%';"
            for procedure in ("present", "roster")
        ]
        return _statements("prober", granted, sessions=10, maximum=_PROBER_MAXIMUM)

    def reach(self, scope: DatabaseScope) -> Sequence[str]:
        """A sentence for each privilege."""
        wanted = cast("MariadbScope", scope)
        return [sentence(each, _VERBS, wanted.connection) for each in wanted.parsed]


def _statements(group: str, grants: Sequence[str], *, sessions: int, maximum: timedelta) -> Statements:
    seconds = int((maximum + _AFTER).total_seconds())
    creation = (
        _AWAKE,
        _CLOCK.replace("<seconds>", str(seconds)).replace("<group>", group),
        _LOGIN.replace("<sessions>", str(sessions)),
        _GRANTS.replace("<grants>", "\n  ".join(grants)),
    )
    return Statements(creation=[json.dumps(creation)], revocation=[json.dumps([_REVOCATION, _NO_CLOCK])])


def _granted(privileges: Sequence[Privilege]) -> Iterator[str]:
    for each in privileges:
        columns = f" ({', '.join(map(_quoted, each.columns))})" if each.columns else ""
        yield f"{each.verb.upper()}{columns} ON TABLE {_quoted(each.schema)}.{_quoted(each.name)}"


def _quoted(name: str) -> str:
    # The grammar of names lets no backtick, backslash, brace or semicolon through.
    return f"`{name}`"


DIALECT = Mariadb()
