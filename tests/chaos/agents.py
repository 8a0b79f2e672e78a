"""What agents do to a control plane that may die under their hands, and what they were told before it did."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final

from controlplane.dev.issuer import mint
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import ControlPlaneError
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.world import RandomIds, SystemClock
from tests.chaos.schedule import Move
from tests.chaos.site import MortalPlane

_PATIENCE: Final = 4.0
_AGAIN: Final = "60"
_TRIES: Final = defaultdict[str, int](lambda: 15, ask=60)
"""Without a grant there is nothing to do."""
_PASSING: Final = {"not-authenticated", "lost-race"}
"""What may be otherwise a moment later; whoever is refused for any other reason would only be told the same."""
_APPROVER: Final[Mapping[str, JsonValue]] = {"role": "approver", "groups": ["sales-oncall"]}
_RESPONDER: Final[Mapping[str, JsonValue]] = {"role": "responder"}


@dataclass
class Frozen:
    """Between these instants `subject` certainly was frozen; `until` is None while nobody has tried to thaw it."""

    subject: str
    since: datetime
    until: datetime | None = None


@dataclass
class Told:
    """What the agents of one schedule know for sure: what was acknowledged has to be true, whoever died since."""

    granted: list[str] = field(default_factory=list[str])
    """Grants that were answered with a wrapping token."""
    ended: set[str] = field(default_factory=set[str])
    """Grants whose end was acknowledged."""
    finished: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """Tasks whose end was acknowledged, each after its subject."""
    until: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """Until when a grant was said to live by its last renewal."""
    decided: dict[str, str] = field(default_factory=dict[str, str])
    """What a person's answer to a request came to: the state of the grant right after it."""
    frozen: list[Frozen] = field(default_factory=list[Frozen])
    credentials: list[tuple[str, Mapping[str, Secret]]] = field(default_factory=list[tuple[str, Mapping[str, Secret]]])
    """What they opened, each after its grant."""
    refused: Counter[str] = field(default_factory=Counter[str])
    """How often which move was refused for good, and the code."""


@dataclass
class Agent:
    """One of them. What was not answered it tries again: asking is then another request, for another task."""

    plane: MortalPlane
    client: Shorthold
    approver: Shorthold
    responder: Shorthold
    told: Told
    subject: str
    name: str
    asked: int = 0
    entitlement: str = ""
    task: str = ""
    grant: str | None = None
    digest: str = ""
    sealed: tuple[str, Secret] | None = None
    """What was granted last, and the wrapping token that nobody has opened yet."""
    freeze_: str | None = None

    def ask(self, what: str) -> None:
        """For a grant of an entitlement and a TTL, for a new task."""
        self.entitlement, ttl = what.split()
        self.asked += 1
        self.task, self.grant, self.sealed = f"{self.name}-{self.asked}", None, None
        answer = self._wish(ttl, self.task)
        self.grant = str(answer["grant"]["id"])
        self.digest = answer["asked"]["digest"] if "asked" in answer else ""

    def part(self, ttl: str) -> None:
        """For another grant of the same, for a part of the task."""
        if self.grant is not None:
            self.asked += 1
            self._wish(ttl, f"{self.task}/{self.asked}", parent=self.task)

    def approve(self, _: str) -> None:
        """What it asked for: somebody else does."""
        if self.grant is not None:
            self.told.decided[self.grant] = self.approver.approve(self.grant, self.digest)["grant"]["state"]

    def deny(self, _: str) -> None:
        """What it asked for: somebody else does."""
        if self.grant is not None:
            self.told.decided[self.grant] = self.approver.deny(self.grant, "not today")["grant"]["state"]

    def collect(self, _: str) -> None:
        """What was approved."""
        if self.grant is not None:
            self._delivered(self.client.collect(self.grant))

    def open(self, _: str) -> None:
        """What it got, at OpenBao itself."""
        if self.sealed is not None:
            grant, wrapping_token = self.sealed
            opened = self.client.unwrap(self.plane.stack.vault_addr, wrapping_token)
            self.told.credentials += [(grant, credential) for credential in opened.values()]

    def renew(self, ttl: str) -> None:
        """Have it live that long from now."""
        if self.grant is not None:
            answer = self.client.renew(self.grant, ttl=ttl)
            self.told.until[self.grant] = datetime.fromisoformat(answer["grant"]["expires_at"])

    def beat(self, _: str) -> None:
        """Say that it is still at work."""
        if self.grant is not None:
            self.client.heartbeat(self.grant)

    def finish(self, _: str) -> None:
        """What it was granted."""
        if self.grant is not None:
            self.client.finish(self.grant)
            self.told.ended.add(self.grant)

    def finish_task(self, _: str) -> None:
        """With all its parts."""
        if self.grant is not None:
            self.client.finish_task(self.task)
            self.told.finished.add((self.subject, self.task))

    def freeze(self, _: str) -> None:
        """A responder stops its subject, which is another agent's, too."""
        wish = {"selection": f"subject={self.subject}", "message": "Wait.", "reason": "to see", "expires_in": "1m"}
        answer = self.responder.freeze(wish)
        self.freeze_ = str(answer["freeze"]["id"])
        if answer["settled"]:  # else something that was decided before may still be on its way
            self.told.frozen.append(Frozen(self.subject, SystemClock().now()))

    def thaw(self, _: str) -> None:
        """And lets it go on."""
        for frozen in self.told.frozen:
            if frozen.subject == self.subject and frozen.until is None:
                frozen.until = SystemClock().now()
        if self.freeze_ is not None:
            self.responder.thaw(self.freeze_, reason="seen")

    def pause(self, milliseconds: str) -> None:
        """Work for so long."""
        threading.Event().wait(int(milliseconds) / 1000)

    def _wish(self, ttl: str, task: str, *, parent: str | None = None) -> dict[str, Any]:
        wish = {"entitlement": self.entitlement, "intent": "answer-question", "task": task, "parent": parent}
        return self._delivered(self.client.request({**wish, "ttl": ttl}))

    def _delivered(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "wrapping_token" in answer:
            self.sealed = str(answer["grant"]["id"]), Secret(answer["wrapping_token"])
            self.told.granted.append(self.sealed[0])
        return answer


VERBS: Final[Mapping[str, Callable[[Agent, str], None]]] = {
    "ask": Agent.ask,
    "part": Agent.part,
    "approve": Agent.approve,
    "deny": Agent.deny,
    "collect": Agent.collect,
    "open": Agent.open,
    "renew": Agent.renew,
    "beat": Agent.beat,
    "finish": Agent.finish,
    "finish-task": Agent.finish_task,
    "freeze": Agent.freeze,
    "thaw": Agent.thaw,
    "pause": Agent.pause,
}
"""Everything that can be done in a schedule."""


def at_work(plane: MortalPlane, subject: str, name: str, moves: Sequence[Move], told: Told) -> threading.Thread:
    """An agent that makes its moves, in a thread of its own."""

    def work() -> None:
        with ExitStack() as opened:
            own, approver, responder = (
                opened.enter_context(client(plane, who, claims))
                for who, claims in ((subject, {}), ("ann", _APPROVER), ("rita", _RESPONDER))
            )
            agent = Agent(plane, own, approver, responder, told, subject, name)
            for move in moves:
                for _ in range(_TRIES[move.verb]):
                    try:
                        VERBS[move.verb](agent, move.argument)
                        break
                    except AnsweredError as error:
                        if _is_final(error):
                            told.refused[f"{move.verb} {error.told_code}"] += 1
                            break
                    except ControlPlaneError:
                        pass  # it is dead just now
                    agent.pause(_AGAIN)

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread


def client(plane: MortalPlane, subject: str, claims: Mapping[str, JsonValue] | None = None) -> Shorthold:
    """Somebody of whom the dev issuer says these claims. Close it when done."""
    issuer = plane.stack.issuer
    key, url = issuer.key, issuer.url

    def token() -> Secret:
        return mint(key, url, subject, now=SystemClock().now(), ids=RandomIds(), claims=claims)

    return Shorthold(plane.api, token, timeout=_PATIENCE)


def _is_final(error: AnsweredError) -> bool:
    refused = error.http_status < HTTPStatus.INTERNAL_SERVER_ERROR
    return refused and error.told_code not in _PASSING
