"""What agents do to a control plane that may die under their hands, and what they were told before it did."""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from controlplane.dev.story import AGENT
from controlplane.model.errors import ControlPlaneError
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from tests.chaos.schedule import Move
from tests.chaos.site import MortalPlane

_PATIENCE: Final = 4.0
_AGAIN: Final = "60"
_TRIES: Final = defaultdict[str, int](lambda: 15, ask=60)
"""Without a grant there is nothing to do."""
_PASSING: Final = {"not-authenticated", "lost-race"}
"""What may be otherwise a moment later; whoever is refused for any other reason would only be told the same."""


@dataclass
class Told:
    """What the agents of one schedule know for sure: what was acknowledged has to be true, whoever died since."""

    granted: list[str] = field(default_factory=list[str])
    """Grants that were answered with a wrapping token."""
    ended: set[str] = field(default_factory=set[str])
    """Grants whose end was acknowledged."""
    credentials: dict[str, Mapping[str, Secret]] = field(default_factory=dict[str, Mapping[str, Secret]])
    """What they opened, by grant."""
    refused: Counter[str] = field(default_factory=Counter[str])
    """How often which move was refused for good, and the code."""


@dataclass
class Agent:
    """One of them. What was not answered it tries again: asking is then another request, for another task."""

    plane: MortalPlane
    client: Shorthold
    told: Told
    name: str
    asked: int = 0
    grant: str | None = None
    wrapping_token: Secret | None = None

    def ask(self, ttl: str) -> None:
        """For a grant."""
        self.asked += 1
        self.grant = self.wrapping_token = None
        wish = {"entitlement": "orders-read", "intent": "answer-question", "task": f"{self.name}-{self.asked}"}
        answer = self.client.request({**wish, "ttl": ttl})
        self.grant = str(answer["grant"]["id"])
        self.wrapping_token = Secret(answer["wrapping_token"])
        self.told.granted.append(self.grant)

    def open(self, _: str) -> None:
        """What it got, at OpenBao itself."""
        if self.grant is not None and self.wrapping_token is not None:
            opened = self.client.unwrap(self.plane.stack.vault_addr, self.wrapping_token)
            self.told.credentials[self.grant] = opened["orders"]

    def finish(self, _: str) -> None:
        """What it was granted."""
        if self.grant is not None:
            self.client.finish(self.grant)
            self.told.ended.add(self.grant)

    def pause(self, milliseconds: str) -> None:
        """Work for so long."""
        threading.Event().wait(int(milliseconds) / 1000)


VERBS: Final[Mapping[str, Callable[[Agent, str], None]]] = {
    "ask": Agent.ask,
    "open": Agent.open,
    "finish": Agent.finish,
    "pause": Agent.pause,
}
"""Everything that an agent can do in a schedule."""


def at_work(plane: MortalPlane, name: str, moves: Sequence[Move], told: Told) -> threading.Thread:
    """An agent that makes its moves, in a thread of its own."""

    def work() -> None:
        with plane.agent(AGENT, timeout=_PATIENCE) as client:
            agent = Agent(plane, client, told, name)
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


def _is_final(error: AnsweredError) -> bool:
    refused = error.http_status < HTTPStatus.INTERNAL_SERVER_ERROR
    return refused and error.told_code not in _PASSING
