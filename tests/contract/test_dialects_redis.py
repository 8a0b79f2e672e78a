"""The rules of a Redis scope, on a real OpenBao and Redis: what a login may do, and how it ends."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import redis as library
from redis.exceptions import NoPermissionError

from controlplane.engines.dialects.redis import COMMANDS, KeyPrivilege, parse
from controlplane.model.plan import Compiled, Layout
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.redis import RedisServer
from controlplane.vault.client import VaultClient, part

pytestmark = pytest.mark.servers

LAYOUT = Layout(prefix="ev", mounts={"database": "database-ev"})
PRIVILEGES = ("read on keys cart:*", "hset on keys cart:*", "write on keys log:*", "incr on keys counter:orders")


@dataclass(frozen=True, kw_only=True)
class Login:
    """An issued credential; what it opened is closed with the bench."""

    lease: str
    user: str
    password: str
    server: RedisServer
    opened: list[Any]

    def open(self) -> Any:  # noqa: ANN401 # its client is hardly typed
        client = self.server.connect(self.user, self.password)
        self.opened.append(client)
        return client


class Bench:
    """A role in Vault, and both ends of it."""

    def __init__(self, vault: VaultClient, server: RedisServer) -> None:
        self.vault, self.server = vault, server
        self.issued: list[str] = []
        self.opened: list[Any] = []

    def role(self, *privileges: str) -> Compiled:
        scope = {"name": "it", "engine": "database", "dialect": "redis", "connection": "carts"}
        compiled = compiled_entitlement(
            LAYOUT, entitlement="bench", scopes=[scope | {"privileges": privileges or PRIVILEGES}]
        )
        self.vault.write(compiled.objects[0].path, compiled.objects[0].data)
        return compiled

    def issue(self, role: Compiled) -> Login:
        answer = self.vault.read(f"{LAYOUT.mounts['database']}/creds/{role.naming.scope('it')}")
        data = part(answer, "data")
        login = Login(
            lease=str((answer or {})["lease_id"]),
            user=str(data["username"]),
            password=str(data["password"]),
            server=self.server,
            opened=self.opened,
        )
        self.issued.append(login.lease)
        return login

    def revoke(self, lease: str) -> None:
        self.vault.write("sys/leases/revoke", {"lease_id": lease, "sync": True})

    def exists(self, name: str) -> bool:
        return name in self.server.ask("ACL", "USERS")

    def sessions(self, name: str) -> int:
        return sum(each["user"] == name for each in self.server.ask("CLIENT LIST"))


@pytest.fixture(scope="module")
def mounted(vault_root: VaultClient, redis: RedisServer) -> Generator[VaultClient]:
    for command in (
        ("HSET", "cart:1", "sku", "7"),
        ("SET", "cart:name", "x"),
        ("SET", "secret:1", "s"),
        ("SET", "log:1", "l"),
    ):
        redis.ask(*command)
    vault_root.write(f"sys/mounts/{LAYOUT.mounts['database']}", {"type": "database"})
    vault_root.write(f"{LAYOUT.mounts['database']}/config/carts", redis.connection(LAYOUT))
    yield vault_root
    vault_root.delete(f"sys/mounts/{LAYOUT.mounts['database']}")


@pytest.fixture
def bench(mounted: VaultClient, redis: RedisServer) -> Iterator[Bench]:
    bench = Bench(mounted, redis)
    yield bench
    for client in bench.opened:
        client.close()
    for lease in bench.issued:
        bench.revoke(lease)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)


def test_a_login_may_do_what_is_written(bench: Bench) -> None:
    client = bench.issue(bench.role()).open()
    for allowed in ("HGETALL cart:1", "GET cart:name", "HSET cart:1 sku 8", "SET log:1 x", "DEL log:2", "PING"):
        client.execute_command(*allowed.split())
    client.execute_command("INCR", "counter:orders")


@pytest.mark.parametrize(
    "forbidden",
    [
        "GET secret:1",
        "MGET cart:name secret:1",
        "GET carts",
        "SET cart:name x",
        "DEL cart:1",
        "HDEL cart:1 sku",
        "GET log:1",
        "SET log:1 x GET",
        "GETSET log:1 x",
        "HSET secret:1 a b",
        "INCR counter:visits",
        "DECR counter:orders",
        "GET counter:orders",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "DBSIZE",
        "FLUSHALL",
        "SELECT 1",
        "SWAPDB 0 1",
        "EVAL return(1) 0",
        "FUNCTION LIST",
        "SORT cart:1 BY secret:*",
        "COPY cart:1 log:1",
        "RENAME cart:1 log:1",
        "PUBLISH news x",
        "SUBSCRIBE news",
        "CONFIG GET *",
        "ACL WHOAMI",
        "ACL SETUSER mine on nopass +@all ~*",
        "CLIENT LIST",
        "CLIENT NO-EVICT on",
        "MONITOR",
        "INFO",
        "SHUTDOWN NOSAVE",
        "REPLICAOF NO ONE",
        "MODULE LIST",
        "WAIT 1 1",
        "MULTI",
    ],
)
def test_and_nothing_else(bench: Bench, forbidden: str) -> None:
    client = bench.issue(bench.role()).open()
    with pytest.raises(NoPermissionError):
        client.execute_command(*forbidden.split())


def as_it_is(answer: Any, **_: Any) -> Any:  # noqa: ANN401 # whatever the server says
    return answer


def paired(answer: list[Any]) -> dict[str, Any]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


def allowed(server: RedisServer, rules: str) -> set[str]:
    """The commands that rules come to: Redis shows them by category, with what is missing of it."""
    found: set[str] = set()
    for rule in rules.split(" "):
        named = {rule[1:]}
        if rule.startswith(("+@", "-@")):
            category = rule[2:]
            named = found if category == "all" else set(server.ask("ACL", "CAT", category))
        found = found | named if rule.startswith("+") else found - named
    return found


def shown(server: RedisServer, selector: list[Any]) -> str:
    """A selector of ACL GETUSER in our language."""
    found = paired(selector)
    assert found["channels"] == ""
    pattern, commands = str(found["keys"]).rpartition("~")[2], allowed(server, str(found["commands"]))
    (parsed,) = [
        each
        for verb in ("read", "write", *COMMANDS)
        if set((each := parse(f"{verb} on keys {pattern}")).commands) == commands
    ]
    assert parsed.selector.startswith(f"({found['keys']} ")
    return str(parsed)


def test_what_the_server_shows_is_what_was_written(bench: Bench) -> None:
    login = bench.issue(bench.role())
    client = bench.server.connect("root", bench.server.root.reveal())
    client.set_response_callback("ACL GETUSER", as_it_is)
    user = paired(client.execute_command("ACL GETUSER", login.user))
    client.close()
    assert (user["commands"], user["keys"], user["channels"]) == ("-@all +ping", "", "")
    assert sorted(shown(bench.server, selector) for selector in user["selectors"]) == sorted(PRIVILEGES)


def test_the_server_knows_every_command_of_the_language(redis: RedisServer) -> None:
    for verb in ("read", "write", *sorted(COMMANDS)):
        assert str(parse(f"{verb.upper()} on keys a:*")) == f"{verb} on keys a:*"
        redis.ask("ACL", "SETUSER", "words", KeyPrivilege(verb=verb, keys="a:*").selector)
    redis.ask("ACL", "DELUSER", "words")


def test_an_open_connection_is_closed_and_nobody_comes_back_d03(bench: Bench) -> None:
    login = bench.issue(bench.role())
    client = login.open()
    assert bench.sessions(login.user) == 1
    bench.revoke(login.lease)
    assert not bench.exists(login.user)
    assert bench.sessions(login.user) == 0
    with pytest.raises(library.RedisError):
        client.execute_command("GET", "cart:name")
    with pytest.raises(library.RedisError):
        login.open()


def test_who_comes_back_at_once_is_out_when_revocation_answers_d09(bench: Bench) -> None:
    login = bench.issue(bench.role())
    over, done = threading.Event(), threading.Event()
    kept: list[Any] = []

    def hammer() -> int:
        """How often it got in after revocation had answered."""
        late = 0
        while not over.is_set():
            known = done.is_set()
            try:
                kept.append(login.open())
            except (library.RedisError, OSError):
                continue
            late += known
        return late

    with ThreadPoolExecutor(3) as pool:
        hammers = [pool.submit(hammer) for _ in range(3)]
        try:
            until(lambda: bool(kept))
            bench.revoke(login.lease)
            done.set()
            gone, left = not bench.exists(login.user), bench.sessions(login.user)
            refused_until = time.monotonic() + 0.3
            until(lambda: time.monotonic() > refused_until)
        finally:
            over.set()
        assert [hammer.result() for hammer in hammers] == [0, 0, 0]
    assert gone
    assert left == 0


def test_a_login_that_was_removed_by_hand_counts_as_ended_r14(bench: Bench) -> None:
    login = bench.issue(bench.role())
    bench.server.ask("ACL", "DELUSER", login.user)
    bench.revoke(login.lease)


def test_nobody_else_is_ended_with_it(bench: Bench) -> None:
    role = bench.role()
    one, other = bench.issue(role), bench.issue(role)
    kept = other.open()
    bench.revoke(one.lease)
    kept.execute_command("GET", "cart:name")
    other.open().execute_command("GET", "cart:name")
