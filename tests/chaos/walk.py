"""What one seed stands for in memory: a walk through everything that can be done and go wrong."""

from random import Random
from typing import Final

from tests.chaos.deeds import DEEDS
from tests.chaos.memory import ENTITLEMENTS, LONG, SHORT, TRAPS, TROUBLES, Machine, Trap

STEPS: Final = 90
NAMES: Final = tuple(each.entitlement.name for each in ENTITLEMENTS)
KEYS: Final = (None, None, None, "k-1", "k-2")
TTLS: Final = (None, SHORT, LONG)
OFTEN: Final = (*DEEDS, *("renew",) * 4, "beat", "approve", "approve", "collect", "collect", "part", "thaw", "thaw")
SECONDS: Final = (1, 5, 11, 30, 61, 180)


def walk(seed: int) -> None:
    """Walk, and see that the claim holds on the way and in the end. The same seed is the same walk, everywhere.

    Raises: AssertionError: it does not hold.
    """
    dice = Random(seed)  # noqa: S311 # what happens when, not what to keep secret
    machine = Machine()

    def trap() -> Trap:
        return (dice.choice(TRAPS), dice.randrange(10)) if dice.random() < 0.6 else None

    def replica() -> int:
        return dice.randrange(2)

    actions = (
        (8, lambda: machine.ask(replica(), dice.choice(NAMES), dice.choice(KEYS), dice.choice(TTLS), trap())),
        (6, lambda: machine.open(dice.randrange(9))),
        (4, lambda: machine.finish(replica(), dice.randrange(4), trap())),
        (12, lambda: machine.do(replica(), dice.choice(OFTEN), dice.randrange(4), trap())),
        (6, lambda: machine.work(replica(), trap())),
        (3, lambda: machine.reconcile(replica(), trap())),
        (6, lambda: machine.pass_time(dice.choice(SECONDS))),
        (3, lambda: machine.trouble(replica(), dice.choice(TROUBLES))),
        (3, lambda: machine.trouble(0, "repair")),
        (1, machine.settle),
    )
    weights = [weight for weight, _ in actions]
    for _, act in dice.choices(actions, weights, k=STEPS):
        act()
    machine.end()
