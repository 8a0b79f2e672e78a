"""What one seed stands for: who asks for what, what breaks when, and where the control plane dies.

A schedule is data, and the same for the same seed on every machine. What the operating system makes of it is not: two
runs of one seed kill at the same count of instructions, or the same millisecond, but others may have been quicker.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

LOGIN, READ, WRAP = "/v1/auth/shorthold/login", "/v1/database/creds/sh-*", "/v1/sys/wrapping/wrap"
REVOKE, LEASE, LOOKUP = "/v1/auth/token/revoke-accessor", "/v1/sys/leases/*", "/v1/auth/token/lookup-accessor"
PATHS: Final = (LOGIN, READ, WRAP, REVOKE, LEASE, LOOKUP, "/v1/auth/token/renew-accessor", "/v1/*")
STATUSES: Final = (429, 500, 503)
PLAIN, WATCHED, AGREED = "orders-read", "orders-watched", "orders-agreed"
"""The entitlements in `roles/`."""
INSTRUCTIONS: Final = 12_000
"""About as many as asking for a grant and ending it takes; a life that is not over by then is ended by `kill`."""


@dataclass(frozen=True, slots=True)
class Move:
    """What an agent does next: `verb` is one of `agents.VERBS`, `argument` what it needs to know."""

    verb: str
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Blow:
    """What breaks: `at` and `lasts` are milliseconds, `kind` is one of `BLOWS`, `detail` a path at Vault."""

    at: int
    kind: str
    lasts: int = 0
    detail: str = ""
    status: int = 0


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
        blows = ", ".join(str(blow) for blow in self.blows)
        agents = "; ".join(" ".join(f"{move.verb} {move.argument}".strip() for move in moves) for moves in self.agents)
        return f"seed {self.seed}: lives {self.lives}, blows: {blows}. Agents: {agents}"


def schedule(seed: int, *, replicas: int = 1) -> Schedule:
    """The schedule of a seed."""
    dice = Random(seed)  # noqa: S311 # what happens when, not what to keep secret
    agents = [_moves(dice) for _ in range(3)]
    blows = [_blow(dice, kind) for kind in dice.sample(BLOWS, dice.choice((0, 1, 1, 2, 2, 3)))]
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


def _blow(dice: Random, kind: str) -> Blow:
    """With everything that some kind of blow needs; the others do not look at it."""
    return Blow(
        at=dice.randrange(1000),
        kind=kind,
        lasts=dice.choice(LASTS),
        detail=dice.choice(PATHS),
        status=dice.choice(STATUSES),
    )


def _moves(dice: Random) -> Sequence[Move]:
    moves: list[Move] = []
    for _ in range(dice.choice((2, 3, 4))):
        moves += _got(dice)
        if dice.random() < 0.6:
            moves.append(Move("open"))
        moves += _used(dice)
        if dice.random() < 0.6:
            moves.append(Move(dice.choice(("finish", "finish", "finish-task"))))
        moves.append(Move("pause", str(dice.choice((0, 50, 200)))))
    return moves


def _got(dice: Random) -> Sequence[Move]:
    """How a grant is asked for, up to where there is something to open."""
    entitlement = dice.choice((PLAIN, PLAIN, PLAIN, WATCHED, WATCHED, AGREED))
    ask = Move("ask", f"{entitlement} {dice.choice(('5m', '5m', '10m', '5s'))}")
    if entitlement != AGREED:
        return [ask]
    answer = Move(dice.choice(("approve", "approve", "approve", "deny")))
    return [ask, answer, Move("pause", str(dice.choice((0, 0, 100)))), Move("collect")]


def _used(dice: Random) -> Sequence[Move]:
    """What is done while it lasts."""
    pause = Move("pause", str(dice.choice((0, 20, 100, 250))))
    match dice.choice(("nothing", "nothing", "renew", "renew", "beat", "part", "freeze")):
        case "renew":
            return [Move("renew", dice.choice(("5m", "10m"))), pause]
        case "beat":
            return [Move("beat"), pause, Move("beat")]
        case "part":
            return [Move("part", dice.choice(("5m", "10m"))), pause, *([Move("open")] if dice.random() < 0.5 else [])]
        case "freeze":
            refused = [Move("renew", "10m")] if dice.random() < 0.5 else [Move("ask", f"{PLAIN} 5m")]
            return [Move("freeze"), *refused, pause, Move("thaw")]
        case _:
            return [pause]


BLOWS: Final = (
    *("cut-before", "cut-after", "hold-before", "hold-after", "forge", "twice", "half"),
    *("vault-says", "vault-cut-off", "kill-openbao", "seal-openbao", "stop-openbao"),
    *("kill-postgresql", "openbao-loses-postgresql", "we-lose-postgresql", "clip-openbao", "clip-us"),
    *("postgresql-is-slow", "disk-full", "stop-us", "kill-us", "kill-openbao-amid-commit"),
)
"""Every kind of blow; `faults.KINDS` deals them. New ones go last, and every seed means something else then."""
LASTS: Final = (0, 100, 300, 700)
