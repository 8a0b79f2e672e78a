"""`with grant(…) as access`: ask on entering, keep it alive meanwhile, finish on leaving; also `async with`."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from controlplane.model.errors import ConfigurationError, ControlPlaneError
from controlplane.sdk import exchanges
from controlplane.sdk.access import Access
from controlplane.sdk.calls import Exchange, Json
from controlplane.sdk.driving import BlockingLine, drive
from controlplane.sdk.exchanges import Opened, Wish
from controlplane.sdk.identity import Identity
from controlplane.sdk.refusals import EndedError, OverError
from controlplane.sdk.surroundings import Surroundings, surroundings

if TYPE_CHECKING:
    from controlplane.sdk.over_asyncio import AsyncBeats, AsyncLine

Span = str | timedelta | None

_TASK: Final[ContextVar[str | None]] = ContextVar("task", default=None)
_PATIENCE: Final = 1.0


def grant(
    entitlement: str,
    *,
    intent: str,
    task: str | None = None,
    reason: str | None = None,
    ttl: Span = None,
    parent: str | None = None,
    parameters: Mapping[str, str] | None = None,
    wait: bool | timedelta = False,
    renew: bool = False,
    prove: Span = None,
    identity: Identity | None = None,
    at: Surroundings | None = None,
) -> "Lending":
    """Access to `entitlement` for one task, as a context: `with` or `async with`; each use of it is a grant of its own.

    `task` may be left out inside `with task(…)`. `parameters` narrow it, by name. `wait` waits for people to agree:
    True as long as the grant does, else so long. `renew` keeps it until it is left, within the entitlement's maximum.
    `prove` waits so long on leaving for the receipt. `identity` and `at` take the place of what the environment says.

    Entering raises: DeniedError, FrozenError, OverBudgetError with `reasons`; WaitingError: people have to agree first;
    UnreachableError: nobody answered; ConfigurationError: no token, or no such address.
    Leaving finishes it with `completed`, or by an exception with `failed`; a process that is killed is noticed by its
    missing heartbeats, or by the end of its time.
    """
    chosen = task or _TASK.get()
    if chosen is None:
        raise ConfigurationError("name the task that this is for: task=…, or `with task(…)` around it")
    asked = {
        "entitlement": entitlement,
        "task": chosen,
        "intent": intent,
        "reason": reason,
        "ttl": _span(ttl),
        "parent": parent,
        "parameters": dict(parameters) if parameters else None,
    }
    wish = Wish(asked=asked, wait=wait)
    return Lending(
        enter=lambda: exchanges.enter(wish, time.monotonic), at=at, identity=identity, renew=renew, prove=_span(prove)
    )


def resume(
    id: str,
    *,
    wait: bool | timedelta = False,
    renew: bool = False,
    prove: Span = None,
    identity: Identity | None = None,
    at: Surroundings | None = None,
) -> "Lending":
    """The grant `id` of a WaitingError, once people have agreed: as `grant` from there on."""
    return Lending(
        enter=lambda: exchanges.resume(id, wait, time.monotonic),
        at=at,
        identity=identity,
        renew=renew,
        prove=_span(prove),
    )


def current_task() -> str | None:
    """The task of the `with task(…)` around, if there is one."""
    return _TASK.get()


def task(name: str, *, identity: Identity | None = None, at: Surroundings | None = None) -> "Task":
    """Grants inside are for the task `name`; leaving finishes whatever of it and of its parts is still open.

    A context, `with` or `async with`. Leaving raises UnreachableError where nobody heard that it is over: its grants
    then end by their heartbeats or their time.
    """
    return Task(name=name, at=at, identity=identity)


@dataclass(kw_only=True, slots=True)
class Lending:
    """One access, from entering to leaving. It can be entered again afterwards: that is another grant."""

    enter: Callable[[], Exchange[Opened]]
    at: Surroundings | None
    identity: Identity | None
    renew: bool
    prove: str | None
    _access: Access | None = None
    _line: BlockingLine | None = None
    _beats: "_Beats | None" = None
    _aline: "AsyncLine | None" = None
    _abeats: "AsyncBeats | None" = None

    def __enter__(self) -> Access:
        line = BlockingLine(self._where())
        try:
            opened = drive(self.enter(), line)
        except BaseException:
            line.close()
            raise
        access = self._access = Access(opened)
        self._line = line
        if opened.beat or self.renew:
            self._beats = _Beats(access, exchanges.keep(opened, renew=self.renew), line.at)
        return access

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        access = self._left()
        line, beats, self._line, self._beats = self._line, self._beats, None, None
        if beats is not None:
            beats.stop()
        with contextlib.closing(line or BlockingLine(self._where())) as line, _told(access, error):
            access.ended = drive(self._end(access, error), line)

    async def __aenter__(self) -> Access:
        from controlplane.sdk.over_asyncio import AsyncBeats, AsyncLine, adrive  # noqa: PLC0415 # asyncio takes long

        line = self._aline = AsyncLine(self._where())
        opened = await adrive(self.enter(), line)
        access = self._access = Access(opened)
        if opened.beat or self.renew:
            self._abeats = AsyncBeats(access, exchanges.keep(opened, renew=self.renew), line)
        return access

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from controlplane.sdk.over_asyncio import AsyncLine, adrive  # noqa: PLC0415 # as above

        access = self._left()
        line, beats, self._aline, self._abeats = self._aline, self._abeats, None, None
        if beats is not None:
            await beats.stop()
        with _told(access, error):
            access.ended = await adrive(self._end(access, error), line or AsyncLine(self._where()))

    def _where(self) -> Surroundings:
        if self._access is not None:
            raise RuntimeError("this access is in use: make another one with grant(…)")
        return self.at or surroundings(identity=self.identity)

    def _left(self) -> Access:
        access, self._access = self._access, None
        if access is None:
            raise RuntimeError("this access was not entered")
        access.end(OverError("its task has left it"))  # before anybody is told: nothing works with it meanwhile
        return access

    def _end(self, access: Access, error: BaseException | None) -> Exchange[Json]:
        return exchanges.leave(access.id, _outcome(error), self.prove)


@dataclass(kw_only=True, slots=True)
class Task:
    """A task that is entered and left."""

    name: str
    at: Surroundings | None
    identity: Identity | None
    _before: "Token[str | None] | None" = None

    def __enter__(self) -> str:
        self._before = _TASK.set(self.name)
        return self.name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with contextlib.closing(BlockingLine(self._left())) as line:
            drive(exchanges.leave_task(self.name, _outcome(error)), line)

    async def __aenter__(self) -> str:
        return self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from controlplane.sdk.over_asyncio import AsyncLine, adrive  # noqa: PLC0415 # as above

        await adrive(exchanges.leave_task(self.name, _outcome(error)), AsyncLine(self._left()))

    def _left(self) -> Surroundings:
        if self._before is not None:
            _TASK.reset(self._before)
            self._before = None
        return self.at or surroundings(identity=self.identity)


class _Beats:
    """Beats in a thread of its own, which takes no signals: they are the agent's."""

    def __init__(self, access: Access, beating: Exchange[ControlPlaneError | None], at: Surroundings) -> None:
        self._access, self._beating, self._at = access, beating, at
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"shorthold {access.id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No beat begins after this."""
        self._left.set()
        self._thread.join(_PATIENCE)  # one that is on its way may hang: it harms nobody

    def _beat(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with contextlib.closing(BlockingLine(self._at, pause=self._pause)) as line, contextlib.suppress(_LeftError):
            if (over := drive(self._beating, line)) is not None:
                self._access.end(over)

    def _pause(self, seconds: float) -> None:
        if self._left.wait(seconds):
            raise _LeftError


class _LeftError(Exception):
    """The work is over: nothing is to be kept any more."""


@contextlib.contextmanager
def _told(access: Access, error: BaseException | None) -> Generator[None]:
    """Say that an end was not heard, without hiding what went wrong before."""
    try:
        yield
    except EndedError:  # it was over already
        pass
    except ControlPlaneError as unheard:
        unheard.add_note(f"{access.id} was left, but its end was not heard: it lives until {access.expires_at} at most")
        if error is None:
            raise
        error.add_note(f"{unheard.detail}; {unheard.__notes__[0]}")


def _outcome(error: BaseException | None) -> str:
    return "completed" if error is None else "failed"


def _span(span: Span) -> str | None:
    return f"{math.ceil(span.total_seconds())}s" if isinstance(span, timedelta) else span
