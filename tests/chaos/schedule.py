"""What one seed stands for: who asks for what, what breaks when, and where the control plane dies.

A schedule is data, and the same for the same seed on every machine. What the operating system makes of it is not: two
runs of one seed kill at the same count of instructions, or the same millisecond, but others may have been quicker.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

LOGIN, READ, WRAP = "/v1/auth/shorthold/login", "/v1/database/creds/sh-*", "/v1/sys/wrapping/wrap"
REVOKE, LEASE, LOOKUP = "/v1/auth/token/revoke-accessor", "/v1/sys/leases/*", "/v1/auth/token/lookup-accessor"
PATHS: Final = (LOGIN, READ, WRAP, REVOKE, LEASE, LOOKUP, "/v1/auth/token/renew-accessor", "/v1/*")
STATUSES: Final = (429, 500, 503)
INSTRUCTIONS: Final = 12_000
"""About as many as asking for a grant and ending it takes; a life that is not over by then is ended by `kill`."""


@dataclass(frozen=True, slots=True)
class Move:
    """What an agent does next: `verb` is one of `agents.VERBS`, `argument` what it needs to know."""

    verb: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Blow:
    """What breaks: `at` is milliseconds after the beginning, `kind` one of `faults.KINDS`, `lasts` in milliseconds."""

    at: int
    kind: str
    lasts: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One seed's. `lives` are the counts after which the lives of each replica end by themselves, 0 for never."""

    seed: int
    agents: Sequence[Sequence[Move]]
    blows: Sequence[Blow]
    lives: Sequence[Sequence[int]]
    back_after: int
    """How many milliseconds a control plane stays dead."""

    def __str__(self) -> str:
        """For whoever has to understand a failure."""
        blows = ", ".join(f"{each.at} ms {each.kind} {each.detail} {each.lasts or ''}".strip() for each in self.blows)
        agents = "; ".join(" ".join(f"{move.verb} {move.argument}".strip() for move in moves) for moves in self.agents)
        return f"seed {self.seed}: lives {self.lives}, blows: {blows}. Agents: {agents}"


def schedule(seed: int, *, replicas: int = 1) -> Schedule:
    """The schedule of a seed."""
    dice = Random(seed)  # noqa: S311 # what happens when, not what to keep secret
    agents = [_moves(dice) for _ in range(3)]
    blows = [BLOWS[kind](dice) for kind in dice.sample(list(BLOWS), dice.choice((0, 1, 1, 2, 2, 3)))]
    lives = [[dice.randrange(1, INSTRUCTIONS) if dice.random() < 0.7 else 0 for _ in range(2)] for _ in range(replicas)]
    # At least one death by kill -9 in every schedule: here at an instant, above at an instruction.
    blows.append(Blow(dice.randrange(50, 1200), "kill-us"))
    return Schedule(
        seed=seed,
        agents=agents,
        blows=sorted(blows, key=lambda blow: blow.at),
        lives=lives,
        back_after=dice.choice((0, 50, 300)),
    )


def _moves(dice: Random) -> Sequence[Move]:
    moves: list[Move] = []
    for _ in range(dice.choice((2, 3, 4))):
        moves.append(Move("ask", dice.choice(("5m", "5m", "10m", "3s"))))
        if dice.random() < 0.6:
            moves.append(Move("open"))
        moves.append(Move("pause", str(dice.choice((0, 20, 100, 250)))))
        if dice.random() < 0.6:
            moves.append(Move("finish"))
        moves.append(Move("pause", str(dice.choice((0, 50, 200)))))
    return moves


def _at(dice: Random) -> int:
    return dice.randrange(0, 1000)


BLOWS: Final[dict[str, Callable[[Random], Blow]]] = {
    "cut-before": lambda dice: Blow(_at(dice), "cut-before", 0, dice.choice(PATHS)),
    "cut-after": lambda dice: Blow(_at(dice), "cut-after", 0, dice.choice(PATHS)),
    "forge": lambda dice: Blow(_at(dice), "forge", dice.choice(STATUSES), dice.choice(PATHS)),
    "twice": lambda dice: Blow(_at(dice), "twice", dice.choice(STATUSES), dice.choice(PATHS)),
    "half": lambda dice: Blow(_at(dice), "half", 0, dice.choice(PATHS)),
    "hold-before": lambda dice: Blow(_at(dice), "hold-before", dice.choice((100, 400, 700)), dice.choice(PATHS)),
    "hold-after": lambda dice: Blow(_at(dice), "hold-after", dice.choice((100, 400, 700)), dice.choice(PATHS)),
    "vault-says": lambda dice: Blow(_at(dice), "vault-says", dice.choice((200, 800)), str(dice.choice(STATUSES))),
    "vault-cut-off": lambda dice: Blow(_at(dice), "vault-cut-off", dice.choice((200, 800))),
    "kill-openbao": lambda dice: Blow(_at(dice), "kill-openbao", dice.choice((0, 400))),
    "seal-openbao": lambda dice: Blow(_at(dice), "seal-openbao", dice.choice((0, 400))),
    "stop-openbao": lambda dice: Blow(_at(dice), "stop-openbao", dice.choice((100, 600))),
    "kill-postgresql": lambda dice: Blow(_at(dice), "kill-postgresql", dice.choice((0, 400))),
    "openbao-loses-postgresql": lambda dice: Blow(_at(dice), "openbao-loses-postgresql", dice.choice((0, 300))),
    "we-lose-postgresql": lambda dice: Blow(_at(dice), "we-lose-postgresql", dice.choice((0, 300, 900))),
    "clip-openbao": lambda dice: Blow(_at(dice), "clip-openbao"),
    "clip-us": lambda dice: Blow(_at(dice), "clip-us"),
    "postgresql-is-slow": lambda dice: Blow(_at(dice), "postgresql-is-slow", dice.choice((300, 900))),
    "disk-full": lambda dice: Blow(_at(dice), "disk-full", dice.choice((200, 800))),
    "stop-us": lambda dice: Blow(_at(dice), "stop-us", dice.choice((100, 700))),
    "kill-us": lambda dice: Blow(_at(dice), "kill-us"),
}
