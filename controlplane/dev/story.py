"""The demo's story: one agent, one entitlement, one credential, provably gone. Every claim is checked as it is made."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from controlplane.audit.chain import Broken, Intact
from controlplane.audit.verify import verify_trail
from controlplane.dev.shipped import example
from controlplane.dev.stage import Stage
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.sdk.surroundings import Surroundings, VaultAt
from controlplane.stores.trail import open_trail

AGENT = "repo:acme/support-agent:ref:refs/heads/main"
STRANGER = "repo:mallory/fork:ref:refs/heads/main"
QUESTION = "SELECT id, status, total_cents FROM sales.orders ORDER BY placed_at DESC LIMIT 3"
FORBIDDEN = "UPDATE sales.orders SET status = 'refunded'"


class BrokenPromiseError(Exception):
    """Something the story claims did not hold on these servers."""


@dataclass(slots=True)
class _Teller:
    console: Console
    checked: int = 0

    def chapter(self, title: str) -> None:
        self.console.print(f"\n[bold cyan]{escape(title)}[/]")

    def note(self, text: str) -> None:
        self.console.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)))

    def claim(self, text: str, holds: bool) -> None:  # noqa: FBT001 # a claim holds or does not
        if not holds:
            raise BrokenPromiseError(text)
        self.checked += 1
        self.console.print(Padding(Text.assemble(("✓ ", "green"), text), (0, 0, 0, 2)))


def tell(stage: Stage) -> None:
    """Tell it on `stage`.

    Raises: BrokenPromiseError: a claim did not hold; ControlPlaneError: a server did not start.
    """
    teller = _Teller(Console(highlight=False))
    began = time.monotonic()
    teller.chapter("1  Real servers: OpenBao, PostgreSQL, an OIDC issuer, and the control plane")
    stage.up(lambda step: None if step.startswith(" ") else teller.note(step))
    _stranger(stage, teller)
    _one_task(stage, teller)
    _killed(stage, teller)
    _misled(stage, teller)
    _audit(stage, teller)
    teller.console.print(
        f"\n[bold green]Every claim held:[/] {teller.checked} checks in {time.monotonic() - began:.0f} seconds.\n"
    )


def _stranger(stage: Stage, teller: _Teller) -> None:
    teller.chapter("2  A stranger asks")
    with _client(stage, STRANGER) as stranger:
        refused = _refusal(lambda: stranger.request(_ask("T-0")))
        reasons: list[dict[str, str]] = list(refused.problem.get("reasons") or [])
        for why in reasons:
            teller.note(f"{why['decision']}: {why['detail']} [{why['code']}]")
        teller.claim("denied with 403", refused.http_status == 403)  # noqa: PLR2004 # the status that is claimed
        teller.claim("eligibility is the decision that said no", [why["code"] for why in reasons] == ["not-eligible"])
        unknown = _refusal(lambda: stranger.request({**_ask("T-0"), "entitlement": "no-such-thing"}))
        unknown_reasons: list[dict[str, str]] = list(unknown.problem.get("reasons") or [])
        codes = [why["code"] for why in unknown_reasons]
        teller.claim("an entitlement that does not exist is refused in the same words", codes == ["not-eligible"])


def _one_task(stage: Stage, teller: _Teller) -> None:
    teller.chapter("3  The agent asks, for one task")
    with _client(stage, AGENT) as agent:
        answer = agent.request(_ask("T-1"))
        grant = answer["grant"]
        teller.note(f"grant {grant['id']}, entitlement {grant['entitlement']} revision {grant['revision']}")
        teller.claim("granted: the state is active", grant["state"] == "active")
        teller.claim("the answer holds no credential, only a wrapping token", "credentials" not in answer)
        wrapping = Secret(answer["wrapping_token"])
        credential = agent.unwrap(stage.vault_addr, wrapping)["orders"]
        user = credential["username"].reveal()
        teller.note(f"opened at OpenBao: database user {user}")
        twice = _refusal(lambda: agent.unwrap(stage.vault_addr, wrapping))
        teller.claim("the wrapping token does not open twice", twice.http_status == 400)  # noqa: PLR2004 # as claimed

        teller.chapter("4  The credential does what the task needs, and no more")
        session = stage.connect(credential)
        rows = session.execute(QUESTION).fetchall()
        _show_rows(teller, rows)
        teller.claim("a SELECT as the issued user returns rows", len(rows) == 3)  # noqa: PLR2004 # LIMIT 3
        teller.claim("an UPDATE is refused by PostgreSQL itself", _denied(session, FORBIDDEN))

        teller.chapter("5  The task is finished, while a session is still open")
        ended = agent.finish(grant["id"], wait="20s")["grant"]
        teller.claim("the state is revoked", ended["state"] == "revoked")
        _show_receipt(teller, ended)
        teller.claim("the receipt is verified at the target", ended["receipt"]["verified"] is True)
        teller.claim("the same login is refused by PostgreSQL", not stage.opens(credential))
        teller.claim("the open session was ended", _ended(session))


def _killed(stage: Stage, teller: _Teller) -> None:
    teller.chapter("6  The control plane is killed with -9 in the middle of another task")
    with _client(stage, AGENT) as agent:
        answer = agent.request({**_ask("T-2"), "ttl": "8s"})
        credential = agent.unwrap(stage.vault_addr, Secret(answer["wrapping_token"]))["orders"]
        session = stage.connect(credential)
        teller.claim("the second credential works", len(session.execute(QUESTION).fetchall()) == 3)  # noqa: PLR2004
        stage.kill_control_plane()
        teller.claim("the control plane is dead", not stage.control_plane_answers())
        stage.restart_control_plane()
        teller.claim("restarted, on the same store", stage.control_plane_answers())
        id = answer["grant"]["id"]
        grant = _until(lambda: agent.show(id)["grant"], lambda seen: seen["state"] == "revoked", seconds=30)
        teller.note(f"nobody finished that task; it ended because it {grant['why']}")
        teller.claim("its grant is revoked, at the end of its time", grant["why"] == "expired")
        _show_receipt(teller, grant)
        teller.claim("its receipt is verified at the target", grant["receipt"]["verified"] is True)
        teller.claim("its login is refused by PostgreSQL", not stage.opens(credential))
        teller.claim("its open session was ended", _ended(session))


def _misled(stage: Stage, teller: _Teller) -> None:
    """The agent of `examples/`, which reads a mail that tells it to do more than it may."""
    teller.chapter("7  A whole agent works on three tickets, and one of them misleads it")
    at = Surroundings(addr=stage.api, vault=VaultAt(addr=stage.vault_addr), identity=lambda: stage.token(AGENT))
    told = example("support_agent").work(stage.target, at=at)
    for task, name, result in told.steps:
        teller.note(f"{task}: {name}: {result}")
    results = {(task, name): result for task, name, result in told.steps}
    teller.claim("each step had a grant of its own", len({access.id for access in told.used}) == 4)  # noqa: PLR2004
    teller.claim(
        "told by a mail to pay a refund, it is denied", results["ticket-3", "refund"] == "denied: not-eligible"
    )
    forbidden = results["ticket-3", "correct_status"] == "denied: policy-forbids"
    teller.claim("told to void an invoice, it is denied: a policy reserves that intent", forbidden)
    refused = results["ticket-3", "all_addresses"].startswith("refused by the database")
    teller.claim("told to read every address, it is refused by PostgreSQL itself", refused)
    teller.claim(
        "nothing of it is alive: every receipt is verified",
        all(access.ended is not None and access.ended["receipt"]["verified"] for access in told.used),
    )


def _audit(stage: Stage, teller: _Teller) -> None:
    teller.chapter("8  The audit log")
    match _verified(stage.store_url, stage):
        case Intact(records=records):
            teller.claim(f"the chain of {records} events is intact", holds=True)
        case Broken(detail=detail):
            raise BrokenPromiseError(detail)
    copy = stage.copy_of_store()
    seq = _change_one_byte(copy)
    found = _verified(f"sqlite:///{copy}", stage)
    teller.note(f"one byte of event {seq} is changed in a copy")
    teller.claim("the changed byte is found, in the right place", isinstance(found, Broken) and found.seq == seq)
    if isinstance(found, Broken):
        teller.note(f"verify says: {found.detail}")


def _verified(url: str, stage: Stage) -> Intact | Broken:
    with closing(open_trail(url)) as trail:
        return verify_trail(trail, stage.audit_key)


def _ask(task: str) -> dict[str, str | None]:
    return {
        "entitlement": "orders-read",
        "task": task,
        "intent": "answer-question",
        "reason": "A customer asks where her order is.",
    }


def _client(stage: Stage, subject: str) -> Shorthold:
    return Shorthold(stage.api, lambda: stage.token(subject))


def _refusal(call: Callable[[], object]) -> AnsweredError:
    try:
        call()
    except AnsweredError as error:
        return error
    raise BrokenPromiseError("a request that must be refused was accepted")


def _denied(session: psycopg.Connection, statement: str) -> bool:
    try:
        session.execute(statement.encode())
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


def _ended(session: psycopg.Connection) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False


def _until(
    look: Callable[[], dict[str, Any]], good: Callable[[dict[str, Any]], bool], *, seconds: float
) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while not good(seen := look()):
        if time.monotonic() > deadline:
            raise BrokenPromiseError(
                f"after {seconds:.0f} seconds the grant is still {seen['state']}: {seen['failing']}"
            )
        time.sleep(0.1)
    return seen


def _change_one_byte(store: Path) -> int:
    """Flip one bit of one byte in the file, inside the body of an event in the middle; the number of that event."""
    with closing(sqlite3.connect(store)) as database:
        (seq,) = database.execute("SELECT max(seq) / 2 + 1 FROM events").fetchone()
        (body,) = database.execute("SELECT body FROM events WHERE seq = ?", (seq,)).fetchone()
    content = bytearray(store.read_bytes())
    place = content.index(body.encode()) + len(body.encode()) // 2
    content[place] ^= 1
    store.write_bytes(content)
    return int(seq)


def _show_rows(teller: _Teller, rows: list[Any]) -> None:
    table = Table("order", "status", "total", box=None, pad_edge=False, padding=(0, 3, 0, 2))
    for order, status, cents in rows:
        table.add_row(str(order), str(status), f"{cents / 100:.2f}")
    teller.console.print(table)


def _show_receipt(teller: _Teller, grant: dict[str, Any]) -> None:
    revoking, revoked = (datetime.fromisoformat(grant[name]) for name in ("revoking_at", "revoked_at"))
    teller.note(f"verified gone after {(revoked - revoking).total_seconds() * 1000:.0f} ms")
    for end in grant["receipt"]["ended"]:
        teller.note(f"{end['method']}; {end['evidence']}")
