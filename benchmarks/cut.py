"""`python -m benchmarks.cut`: from the order until PostgreSQL has no such user, beside Vault's own prefixes."""

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click
import psycopg
import urllib3
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.grant import interrupted
from benchmarks.machine import machine, versions
from benchmarks.wire import Wire, WrongAnswerError, bearer, token
from controlplane.dev.configuration import roles_directory
from controlplane.dev.issuer import mint
from controlplane.dev.openbao import MOUNT
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.dev.stage import Stage
from controlplane.keys.files import load
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ConfigurationError, ControlPlaneError
from controlplane.model.plan import Compiled
from controlplane.sync.catalog import Catalog
from controlplane.vault.session import JwtSession
from controlplane.vault.transport import Server
from controlplane.world import RandomIds, SystemClock

AGENTS: Final = 100
ENTITLEMENT: Final = "cut-read"
# Inline, because nobody uses these credentials: a wrapping token would have to be opened within its minute.
_ENTITLEMENT: Final = """\
entitlement: cut-read
owner: team-sales@acme.example
purpose: Read orders for a benchmark.
intents: [benchmark]
risk: low
eligibility:
  - {issuer: dev, subject: {glob: "system:serviceaccount:agents:*"}}
scopes:
  - {name: orders, engine: database, connection: orders, privileges: [select on table sales.orders]}
ttl: {default: 1h, max: 1h}
delivery: inline
"""
_ROLE: Final = "benchmark-cut"
_HANDS: Final = 8
_LOOK_EVERY: Final = 0.05
_PATIENCE: Final = 1800.0  # seconds

# Users are counted where they are, by the group role that only this entitlement's have: nobody else is asked.
_LEFT: Final = """
    SELECT count(*) FROM pg_auth_members AS held JOIN pg_roles AS grouped ON grouped.oid = held.roleid
      JOIN pg_roles AS member ON member.oid = held.member
     WHERE grouped.rolname = %s AND NOT member.rolcreaterole
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One revocation of many leases; spans in seconds from the order.

    `gone`: PostgreSQL had none of these users any more. `proved`: every lease was looked up, PostgreSQL was asked and
    every receipt signed and saved; None where nobody proves anything. `calls` to Vault, `cpu` and `peak` (bytes) of the
    control plane: only ours has them. `trouble` is what Vault answered instead of 2xx.
    """

    way: str
    leases: int
    gone: float
    proved: float | None = None
    calls: int | None = None
    cpu: float | None = None
    peak: int | None = None
    trouble: str = ""


@click.command()
@click.option("--leases", "sizes", type=click.IntRange(100), multiple=True, default=(2_000, 10_000), show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Figures as JSON on stdout.")
def main(sizes: tuple[int, ...], as_json: bool) -> None:  # noqa: FBT001 # a flag
    """Make so many database leases of 100 agents and end them all: ours and Vault's own ways by turns. Not a test.

    Ours are made through the control plane's own API, one grant each; those that Vault ends by prefix are read from the
    same role by one token for each agent, while the control plane is stopped. All have the same revocation statements.
    """
    signal.signal(signal.SIGTERM, interrupted)
    talk = Console(stderr=True, highlight=False)
    try:
        with _stack(talk) as stack:
            told: dict[str, JsonValue] = {"machine": machine(), "versions": versions(stack)}
            ended = [one for size in sizes for one in _Race(stack, talk).run(size)]
    except (ControlPlaneError, WrongAnswerError) as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps({**told, "ended": [asdict(one) for one in ended]}, indent=2))
    else:
        _show(Console(highlight=False), ended)


class _Race:
    """Both ways on one stack."""

    def __init__(self, stack: Stack, talk: Console) -> None:
        self._stack, self._talk = stack, talk
        self._group = _compiled(stack).naming.scope("orders")
        self._path = f"database/creds/{self._group}"
        self._allow()

    def run(self, leases: int) -> Generator[Ended]:
        """Ours: one agent's, then all others'; then Vault's two."""
        self._make(leases)
        yield self._told(self._cut(f'subject="{_subject(0)}"', leases // AGENTS, "ours, one agent"))
        yield self._told(self._cut(f"entitlement={ENTITLEMENT}", leases - leases // AGENTS, "ours, all"))
        self._stack.serve.stop()  # it would end leases that no grant knows of
        for way, sync in (("vault, async", False), ("vault, sync", True)):
            self._read(leases)
            yield self._told(self._prefix(leases, way, sync=sync))
        self._stack.start_control_plane()

    def _told(self, one: Ended) -> Ended:
        self._talk.print(f"[dim]{one.way}: {one.leases} gone after {one.gone:.1f} s {one.trouble}[/]")
        return one

    def _make(self, leases: int) -> None:
        """One grant each, over the API, each agent with tokens of its own."""

        def some(hand: int) -> None:
            wire = Wire(self._stack.api)
            asked = {"entitlement": ENTITLEMENT, "task": "T-1", "intent": "benchmark", "reason": "benchmark"}
            for number in range(hand, leases, _HANDS):
                wire.call("POST", "/v1/grants", asked, bearer(self._token(_subject(number % AGENTS))), status=201)
            wire.close()

        self._by_hands(some, leases, "grants")

    def _read(self, leases: int) -> None:
        """Credentials of the same role, read by a token for each agent."""

        def some(hand: int) -> None:
            wire = Wire(self._stack.vault_addr)
            for agent in range(hand, AGENTS, _HANDS):
                own = self._login()
                for _ in range(agent, leases, AGENTS):
                    wire.call("GET", f"/v1/{self._path}", headers=own)
            wire.close()

        self._by_hands(some, leases, "leases")

    def _allow(self) -> None:
        """Let whoever has the bootstrap key read this credential, and end all of them by their prefix."""
        operator = self._stack.openbao.operator_client()
        policy = f"""
            path "{self._path}" {{capabilities = ["read"]}}
            path "sys/leases/revoke-prefix/{self._path}" {{capabilities = ["update", "sudo"]}}
        """
        operator.write(f"sys/policies/acl/{_ROLE}", {"policy": policy})
        operator.write(
            f"auth/{MOUNT}/role/{_ROLE}",
            {
                "role_type": "jwt",
                "user_claim": "sub",
                "bound_audiences": [MOUNT],
                "token_policies": [_ROLE],
                "token_ttl": "2h",
            },
        )
        operator.close()

    def _login(self) -> dict[str, str]:
        key, server = load(self._stack.openbao.bootstrap_key), Server(self._stack.vault_addr)
        session = JwtSession(server, MOUNT, _ROLE, key, clock=SystemClock(), ids=RandomIds())
        own = session().reveal()
        session.close()
        return token(own)

    def _by_hands(self, some: Callable[[int], None], leases: int, what: str) -> None:
        self._talk.print(f"[dim]making {leases} {what} …[/]")
        with ThreadPoolExecutor(_HANDS) as pool:
            list(pool.map(some, range(_HANDS)))
        if (found := self._left()) != leases:
            raise WrongAnswerError(f"{found} users were made instead of {leases}")

    def _cut(self, selection: str, expected: int, way: str) -> Ended:
        api = Wire(self._stack.api)
        by = bearer(self._token("ann@acme.example", role="responder"))
        process = Serving(self._stack)
        calls, before, users = process.calls(), process.cpu(), self._left()
        with process.watched() as peak:
            began = time.monotonic()
            seen = api.call("POST", "/v1/incidents/preview", {"selection": selection}, by)
            if seen["count"] != expected:
                raise WrongAnswerError(f"{selection} selects {seen['count']} grants instead of {expected}")
            asked = {"digest": seen["digest"], "incident": "INC-1", "reason": "benchmark", "freeze": False, "all": True}
            cut = api.call("POST", "/v1/incidents/cut", asked, by, status=202)["cut"]["id"]
            gone = self._until_gone(began, users - expected)
            proved = self._until_proved(api, cut, expected, began)
        api.close()
        return Ended(
            way=way,
            leases=expected,
            gone=gone,
            proved=proved,
            calls=process.calls() - calls,
            cpu=process.cpu() - before,
            peak=peak(),
        )

    def _until_proved(self, api: Wire, cut: str, expected: int, began: float) -> float:
        while time.monotonic() - began < _PATIENCE:
            # A token of its own each time: a cut may outlast one.
            shown = api.call("GET", f"/v1/incidents/{cut}", headers=bearer(self._token("ann", role="responder")))
            if shown["cut"]["ended_at"] is not None:
                if shown["progress"]["verified"] != expected:
                    raise WrongAnswerError(f"not every one is verified: {shown['progress']}")
                return time.monotonic() - began
            time.sleep(_LOOK_EVERY * 4)
        raise WrongAnswerError("a cut does not end")

    def _prefix(self, leases: int, way: str, *, sync: bool) -> Ended:
        http = urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(_PATIENCE))
        answered: list[str] = []

        def revoke() -> None:
            url = f"{self._stack.vault_addr}/v1/sys/leases/revoke-prefix/{self._path}"
            answer = http.request("POST", url, json={"sync": sync}, headers=self._login())
            if answer.status >= 300:
                answered.append(str(answer.status))

        asking = threading.Thread(target=revoke, daemon=True)
        began = time.monotonic()
        asking.start()
        gone = self._until_gone(began, 0)
        asking.join()
        return Ended(way=way, leases=leases, gone=gone, trouble=", ".join(answered))

    def _until_gone(self, began: float, left: int) -> float:
        while time.monotonic() - began < _PATIENCE:
            if self._left() <= left:
                return time.monotonic() - began
            time.sleep(_LOOK_EVERY)
        raise WrongAnswerError("users are still in PostgreSQL")

    def _left(self) -> int:
        with psycopg.connect(self._stack.postgres.owner.reveal()) as owner:
            (found,) = owner.execute(_LEFT, [self._group]).fetchone() or (0,)
            return int(found)

    def _token(self, subject: str, **claims: str) -> str:
        issuer, now = self._stack.issuer, SystemClock().now()
        hour = timedelta(hours=1)
        return mint(
            issuer.key, issuer.url, subject, now=now, ids=RandomIds(), lifetime=hour, claims={**claims}
        ).reveal()


class Serving:
    """The control plane's own process, as the kernel tells of it."""

    def __init__(self, stack: Stack) -> None:
        if stack.serve.pid is None:
            raise ConfigurationError("the control plane does not run")
        self._place, self._api = Path(f"/proc/{stack.serve.pid}"), stack.api

    def calls(self) -> int:
        """What it has asked Vault since it began, by its own metrics."""
        return int(self._measured("shorthold_vault_call_seconds_count"))

    def open_grants(self) -> int:
        """How many grants have not ended."""
        return int(self._measured("shorthold_grants"))

    def _measured(self, name: str) -> float:
        answer = urllib3.request("GET", f"{self._api}/metrics")
        return _summed(answer.data.decode().splitlines(), name)

    def cpu(self) -> float:
        """Seconds of processor time until now."""
        fields = (self._place / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def watched(self) -> Generator[Callable[[], int]]:
        """The most bytes that it held at any look while the block ran."""
        found, over = [self._resident()], threading.Event()

        def look() -> None:
            while not over.wait(_LOOK_EVERY):
                found.append(self._resident())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield lambda: max(found)
        finally:
            over.set()
            thread.join()

    def _resident(self) -> int:
        return int((self._place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _summed(lines: Iterable[str], name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


def _subject(agent: int) -> str:
    return f"system:serviceaccount:agents:agent-{agent:03}"


def _compiled(stack: Stack) -> Compiled:
    compiled = Catalog(roles_directory(stack.project), LAYOUT, SystemClock()).get(ENTITLEMENT)
    if compiled is None:
        raise ConfigurationError(f"the entitlement {ENTITLEMENT} is not sound")
    return compiled


def _say_nothing(sentence: str) -> None:
    del sentence


@contextmanager
def _stack(talk: Console) -> Generator[Stack]:
    """A stack with the one entitlement, gone afterwards whatever happens."""
    directory = Path(tempfile.mkdtemp(prefix="shorthold-bench-"))
    stage = Stage(directory)
    try:
        (directory / "roles").mkdir()
        (directory / "roles" / f"{ENTITLEMENT}.yaml").write_text(_ENTITLEMENT)
        talk.print("[dim]Starting OpenBao, PostgreSQL, an issuer and the control plane …[/]")
        stage.up(talk.log if talk.is_terminal else _say_nothing)
        yield stage.stack
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave servers behind
        stage.clear()
        shutil.rmtree(directory, ignore_errors=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _show(console: Console, ended: Iterable[Ended]) -> None:
    table = Table(box=SIMPLE_HEAD)
    for title in ("", "leases", "gone, s", "gone/s", "proved, s", "calls a lease", "CPU a lease, ms", "memory, MB", ""):
        table.add_column(title, justify="right" if title else "left")
    for one in ended:
        ours: list[Any] = [""] * 4
        if one.proved is not None and one.calls is not None and one.cpu is not None and one.peak is not None:
            each = (one.calls / one.leases, one.cpu / one.leases * 1000)
            ours = [f"{one.proved:.1f}", *(f"{some:.1f}" for some in each), one.peak // 2**20]
        figures = (one.leases, f"{one.gone:.1f}", f"{one.leases / one.gone:.0f}", *ours)
        table.add_row(one.way, *map(str, figures), one.trouble)
    console.print(table)


if __name__ == "__main__":
    main()
