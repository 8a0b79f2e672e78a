"""A control plane in memory that can be killed at any of its calls: what is dead touches nothing any more."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, cast

from typing_extensions import override

from controlplane.model.plan import Compiled
from controlplane.testing.clock import FakeClock
from controlplane.testing.ids import CountingIds
from controlplane.testing.plane import FakePlane
from controlplane.testing.store import FakeStore
from controlplane.testing.vault import FakeVault

Hook = Callable[[], object]


class KilledError(BaseException):
    """What kill -9 is to a process: nothing of it runs any more, not even what it does when something fails."""


@dataclass
class Life:
    """Of one process."""

    over: bool = False

    def kill(self) -> NoReturn:
        """End it, here and now."""
        self.over = True
        raise KilledError

    def check(self) -> None:
        """Raises: KilledError: it is over, and whatever is still on the stack must do nothing."""
        if self.over:
            raise KilledError


class Mortal:
    """Stands in for something shared: the dead can neither call it nor read it."""

    def __init__(self, shared: object, life: Life) -> None:
        self._shared, self._life = shared, life

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 # whatever is there
        self._life.check()
        found = getattr(self._shared, name)
        return Mortal(found, self._life) if name in {"census", "target"} else found


@dataclass(frozen=True, slots=True)
class Shared:
    """What all replicas work on."""

    store: FakeStore
    vault: FakeVault
    ids: CountingIds
    tokens: Iterator[int]
    """Numbers of the callers' tokens: each is taken once, whoever takes it."""


class Replica:
    """One of several control planes over one store and one Vault, each with a clock and a life of its own.

    `meet` is asked at every call and after every commit what is to happen there.
    """

    def __init__(
        self,
        name: str,
        shared: Shared,
        entitlements: tuple[Compiled, ...],
        meet: "Callable[[Replica, str, str], Hook | None]",
    ) -> None:
        self.name, self.meet = name, meet
        self._shared, self._entitlements = shared, entitlements
        self.clock = FakeClock(shared.vault.clock.now())
        self.start()

    def start(self) -> None:
        """Begin a new life: of the last one there is what the store and Vault have."""
        self.life = Life()
        self.plane = FakePlane(
            store=cast("FakeStore", Mortal(self._shared.store, self.life)),
            vault=cast("FakeVault", Mortal(self._shared.vault, self.life)),
            clock=self.clock,
            ids=self._shared.ids,
            tokens=self._shared.tokens,
            started=True,
        )
        # `sync` made their roles in Vault before, which need not answer now.
        self.plane.entitlements.by_name.update({each.entitlement.name: each for each in self._entitlements})
        self.plane.journal.before = _Steps(self, "before")
        self.plane.journal.after = _Steps(self, "after")
        self.look_at_the_clock()

    @property
    def ahead(self) -> timedelta:
        """How far its clock is ahead of Vault's."""
        return self.clock.now() - self._shared.vault.clock.now()

    def look_at_the_clock(self) -> None:
        """Let it know how far its clock is off, as it learns in production from Vault's answers."""
        self.plane.ahead = self.ahead


class _Steps(dict[str, Hook]):
    """What a journal asks at every step; the answer is the machine's."""

    def __init__(self, replica: Replica, when: str) -> None:
        super().__init__()
        self._replica, self._when, self._life = replica, when, replica.life

    @override
    def pop(self, step: str, *default: Any) -> Any:
        self._life.check()
        hook = self._replica.meet(self._replica, self._when, step)
        return default[0] if hook is None else hook
