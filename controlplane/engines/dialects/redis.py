"""Redis and Valkey (7 and later): commands on keys, as ACL selectors of a user that may do nothing else.

A selector is a set of commands *on* a set of keys, so a line of a scope never lends its keys to another line's
commands. Vault's plugin sends the rules as arguments of one `ACL SETUSER`, never as a line of text; every value in
them was parsed here. It ends a login with `ACL DELUSER`, which closes the user's connections (docs/adr/0022).
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from re import Pattern
from typing import Annotated, Final, Literal, cast

from pydantic import AfterValidator, Field, WithJsonSchema
from typing_extensions import override

from controlplane.engines.dialects import DatabaseScope, Statements, TargetOptions
from controlplane.engines.dialects.terms.group import Group
from controlplane.engines.dialects.terms.privilege import distinct
from controlplane.model.excess import Excess, excess

EXAMPLE: Final = """\
name: carts
engine: database
dialect: redis
connection: carts
privileges:
  - read on keys cart:*
  - hset on keys cart:*
  - incr on keys counter:checkouts
"""

_READING_WORDS: Final = (
    "bitcount bitpos exists expiretime get getbit getrange geodist geohash geopos geosearch hexists hget hgetall "
    "hkeys hlen hmget hrandfield hscan hstrlen hvals lindex llen lpos lrange mget pexpiretime pfcount pttl scard "
    "sdiff sinter sintercard sismember smembers smismember srandmember sscan strlen sunion ttl type xlen xrange "
    "xread xrevrange zcard zcount zlexcount zmscore zrandmember zrange zrank zrevrank zscan zscore"
)
_WRITING_WORDS: Final = (
    "append del expire expireat geoadd hdel hmset hset hsetnx linsert lpush lpushx lrem lset ltrim mset msetnx "
    "persist pexpire pexpireat pfadd psetex rpush rpushx sadd set setbit setex setnx setrange srem unlink xadd "
    "xdel xtrim zadd zrem zremrangebylex zremrangebyrank zremrangebyscore"
)
_CHANGING_WORDS: Final = (
    "decr decrby getdel getex getset hincrby hincrbyfloat incr incrby incrbyfloat lpop rpop spop zincrby zpopmax "
    "zpopmin"
)
_READING, _WRITING = frozenset(_READING_WORDS.split()), frozenset(_WRITING_WORDS.split())
_CHANGING: Final = frozenset(_CHANGING_WORDS.split())
"""They change a value and say what it was or is."""

_GROUPS: Final = {"read": _READING, "write": _WRITING}
COMMANDS: Final = _READING | _WRITING | _CHANGING
"""All that may be named: each works on values at keys that it is given, and on nothing else."""

_KEYS: Final = r"[A-Za-z0-9_:./{}-]+(?:\*[A-Za-z0-9_:./{}-]+)*\*?"
_SHAPE: Final = re.compile(rf"(?P<verb>[a-z]+) on keys (?P<keys>{_KEYS})", re.ASCII)
_LONGEST: Final = 200

# What people try first, and what they are told; the grammar has refused it already when this is looked at.
_HINTS: Final[tuple[tuple[str, Excess | None, str], ...]] = (
    (r"{{|}}", "raw", "has no templates: a key in it is that key"),
    (r"\bon keys? +\*", "wildcard", "begins with what its keys begin with: one on every key is more than a task needs"),
    (r"[+~&%@]", "raw", "is no ACL rule: write it as `read on keys cart:*`"),
    (r"\b(all|any)\b", "all", "names a command, or read or write: ALL is more than a task needs"),
    (r"[?\[\]\\^]", "wildcard", "has one sign that stands for others, and that is *"),
    (r"\bon keys +\S+ +\S", None, "is on one pattern: write a line for each"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPrivilege:
    """A command, or all that read or all that write, on the keys that fit a pattern; only `*` stands for others."""

    verb: str
    keys: str

    def __str__(self) -> str:
        """The one spelling of it."""
        return f"{self.verb} on keys {self.keys}"

    @property
    def commands(self) -> tuple[str, ...]:
        """The commands it allows, by name."""
        return tuple(sorted(_GROUPS.get(self.verb, {self.verb})))

    @property
    def selector(self) -> str:
        """The same as an ACL selector: these commands on these keys, and reading or writing them only."""
        reading, writing = self.verb == "read" or self.verb in _READING, self.verb == "write" or self.verb in _WRITING
        keys = f"%R~{self.keys}" if reading else f"%W~{self.keys}" if writing else f"~{self.keys}"
        return f"({keys} {' '.join(f'+{command}' for command in self.commands)})"


def parse(text: str) -> KeyPrivilege:
    """The privilege that `text` says. The case of a verb does not count, that of a key does.

    Raises: ValueError: with what to write instead.
    """
    verb, *rest = re.sub(r" +", " ", text.strip(" ")).split(" ", 1)
    words = " ".join([verb.lower(), *(part[: len("on keys")].lower() + part[len("on keys") :] for part in rest)])
    shape = _SHAPE.fullmatch(words)
    if shape is None or len(words) > _LONGEST or re.search("{{|}}", words):
        raise _refused(text, "write it as `read on keys cart:*`, `write on keys cart:*` or `hset on keys cart:*`")
    if shape["verb"] not in _GROUPS and shape["verb"] not in COMMANDS:
        raise _refused(
            text, f"{shape['verb']} is no command that reads or writes one value at a named key: read, write, hset …"
        )
    return KeyPrivilege(verb=shape["verb"], keys=shape["keys"])


def _refused(text: str, otherwise: str) -> ValueError:
    """What to tell whoever wrote `text`: `otherwise` where it is none of what people try first."""
    for pattern, kind, hint in _HINTS:
        if re.search(pattern, text, re.IGNORECASE):
            return excess(kind, f"a privilege {hint}") if kind else ValueError(f"a privilege {hint}")
    return ValueError(otherwise)


PrivilegeText = Annotated[
    str,
    AfterValidator(lambda text: str(parse(text))),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^[A-Za-z]+ +on +keys +\S+$",
            "examples": ["read on keys cart:*", "incr on keys counter:checkouts"],
        }
    ),
]
"""A privilege in a document: text, in its one spelling."""


class RedisScope(DatabaseScope):
    """Values at named keys of database 0."""

    privileges: Annotated[tuple[PrivilegeText, ...], AfterValidator(distinct)] = Field(
        min_length=1, max_length=64, description="What the login may do: commands on keys, one a line."
    )

    @property
    def parsed(self) -> tuple[KeyPrivilege, ...]:
        """The privileges as values, in one order whatever the order of the lines was."""
        return tuple(parse(text) for text in sorted(self.privileges))

    @override
    def doubts(self) -> Iterator[str]:
        """Patterns that are open before their first name ends."""
        for each in self.parsed:
            first, star, _ = each.keys.partition("*")
            if star and not re.search(r"[:/.{]", first):
                yield f"{each.keys} fits keys of others too: name them up to their first ':' at least"


class RedisOptions(TargetOptions):
    """How the line to it is encrypted. `off` sends the prober's password in clear."""

    port: int = Field(default=6379, ge=1, le=65535)
    tls: Literal["verify", "off"] = "verify"
    cacert: Path | None = None


@dataclass(frozen=True, slots=True)
class Redis:
    """Source: OpenBao docs, api/secret/databases/valkey; Redis docs, "ACL" (selectors, key permissions)."""

    word: str = "redis"
    plugins: frozenset[str] = frozenset({"valkey-database-plugin", "redis-database-plugin"})
    scope_model: type[DatabaseScope] = RedisScope
    options: type[TargetOptions] = RedisOptions
    example: str = EXAMPLE
    usernames: Pattern[str] = re.compile(r"[A-Za-z0-9_-]{1,250}", re.ASCII)

    def statements(self, scope: DatabaseScope, group: Group, *, maximum: timedelta) -> Statements:
        """A user with one selector for each privilege. The server has no clock for it, and the plugin no other end."""
        del group, maximum  # a user belongs to nothing, and has no end
        return _statements(each.selector for each in _own(scope).parsed)

    def prober(self) -> Statements:
        """It may name users and list connections: no password, not even as a hash, and no key."""
        return _statements(("+acl|users", "+client|list"))

    def reach(self, scope: DatabaseScope) -> Sequence[str]:
        """A sentence for each privilege."""
        return [
            f"may {each.verb if each.verb in _GROUPS else each.verb.upper()} the keys {each.keys} in {scope.connection}"
            for each in _own(scope).parsed
        ]


# Nothing is left to what a server gives to new users. PING tells nothing, and pools of connections ask it.
_NOTHING: Final = ("resetkeys", "resetchannels", "-@all", "clearselectors", "+ping")


def _statements(rules: Iterable[str]) -> Statements:
    return Statements(creation=[json.dumps([*_NOTHING, *rules])])


def _own(scope: DatabaseScope) -> RedisScope:
    return cast("RedisScope", scope)


DIALECT = Redis()
