"""PostgreSQL (16 and later): privileges on a group role, a login that is its member, and an end that ends sessions.

Vault fills `{{name}}`, `{{password}}` and `{{expiration}}` in, runs all entries of a list of statements in one
transaction, and splits an entry at `;` unless it contains the word END. Every other value in these texts was
parsed (privilege.py) or is a name of ours; nothing is pasted.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controlplane.engines.dialects.privilege import Privilege

_MAX_NAME = 63  # bytes; PostgreSQL cuts longer names off without an error

_ROLE = re.compile(r"(?P<base>.+)(?P<rest>-[0-9a-f]{8}-[a-z][a-z0-9-]{0,15})", re.ASCII)

# A number that all control planes agree on: creators of group roles wait for each other, because two GRANTs on
# one table at the same time fail with "tuple concurrently updated".
_LOCK = int.from_bytes(hashlib.sha256(b"shorthold group roles").digest()[:8], signed=True)

# That a crash of the database loses this is safe (access is gone), so nobody waits for the disk here. The
# self-grant lets the management user drop what the login may come to own. A random password needs no stretching,
# and SCRAM's 4096 rounds would cost more than everything else together. The login inherits the group's privileges
# but cannot become it (SET FALSE), so that nothing it makes is the group's. Whoever makes a new revision's group
# also drops those of older revisions that have no member left, so that they do not pile up.
_CREATION = """DO $shorthold$
DECLARE
  stale name;
BEGIN
  SET LOCAL synchronous_commit = off;
  SET LOCAL createrole_self_grant = 'set, inherit';
  SET LOCAL scram_iterations = 1;
  FOR attempt IN 1..2 LOOP
    EXIT WHEN EXISTS (
      SELECT FROM pg_catalog.pg_roles WHERE rolname = '<group>'
        AND <checks>
    );
    IF attempt = 2 THEN
      RAISE EXCEPTION 'role % may not grant all that % needs: it lacks a grant option', current_user, '<group>';
    END IF;
    PERFORM pg_catalog.pg_advisory_xact_lock(<lock>);
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '<group>') THEN
      CREATE ROLE "<group>" NOLOGIN;
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
END $shorthold$;
CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT <sessions>;
GRANT "<group>" TO "{{name}}" WITH INHERIT TRUE, SET FALSE"""

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
  IF who IS NOT NULL THEN
    DROP OWNED BY "{{name}}";
    DROP ROLE "{{name}}";
  END IF;
END $shorthold$"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The NOLOGIN role that carries one scope's privileges.

    Its name has 63 bytes at most. A long entitlement name is cut, which is safe: the revision is a digest over all
    of it.
    """

    prefix: str
    entitlement: str
    revision: str
    scope: str

    @property
    def name(self) -> str:
        """The role's name."""
        return self._with(self.revision)

    @property
    def siblings(self) -> str:
        """A regular expression for the group roles of all revisions of this scope. Such names need no escaping."""
        return f"^{self._with('#' * len(self.revision))}$".replace("#", "[0-9a-f]")

    def _with(self, revision: str) -> str:
        rest = f"-{revision}-{self.scope}"
        return f"{self.prefix}-{self.entitlement}"[: _MAX_NAME - len(rest)] + rest


def group_of(role: str) -> str:
    """The name of the group role behind a role in Vault, which is called like it but may be longer."""
    found = _ROLE.fullmatch(role)
    return role if found is None else found["base"][: _MAX_NAME - len(found["rest"])] + found["rest"]


def creation(group: Group, privileges: Iterable[Privilege], *, sessions: int) -> str:
    """Make the group role where it is missing or lacks something, then the login: one text, one round trip.

    `sessions` is how many connections the login may have at once.
    """
    granted = sorted(set(privileges), key=str)
    parts = {
        "<group>": group.name,
        "<siblings>": group.siblings,
        "<lock>": str(_LOCK),
        "<checks>": "\n        AND ".join(_checks(granted)),
        "<grants>": "\n    ".join(f'GRANT {what} TO "{group.name}";' for what in _grants(granted)),
        "<sessions>": str(sessions),
    }
    text = _CREATION
    for placeholder, part in parts.items():
        text = text.replace(placeholder, part)
    return text


def _grants(privileges: list[Privilege]) -> Iterator[str]:
    for schema in sorted({privilege.schema for privilege in privileges}):
        yield f"USAGE ON SCHEMA {_quoted(schema)}"
    for privilege in privileges:
        columns = f" ({', '.join(map(_quoted, privilege.columns))})" if privilege.columns else ""
        yield f"{privilege.verb.upper()}{columns} ON {privilege.kind.upper()} {_relation(privilege)}"


def _checks(privileges: list[Privilege]) -> Iterator[str]:
    """Whether the group role still has all of it: a table that was made anew has lost its grants."""
    yield "pg_catalog.has_database_privilege(oid, current_database(), 'CONNECT')"
    for schema in sorted({privilege.schema for privilege in privileges}):
        yield f"pg_catalog.has_schema_privilege(oid, '{schema}', 'USAGE')"
    for privilege in privileges:
        relation, verb = _relation(privilege), privilege.verb.upper()
        if privilege.columns:
            for column in privilege.columns:
                yield f"pg_catalog.has_column_privilege(oid, '{relation}', '{column}', '{verb}')"
        else:
            yield f"pg_catalog.has_{privilege.kind}_privilege(oid, '{relation}', '{verb}')"


def _relation(privilege: Privilege) -> str:
    return f"{_quoted(privilege.schema)}.{_quoted(privilege.name)}"


def _quoted(name: str) -> str:
    # The grammar of names lets no quote, backslash, dollar, brace or semicolon through.
    return f'"{name}"'
