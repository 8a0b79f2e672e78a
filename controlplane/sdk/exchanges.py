"""What an agent and its control plane say to each other, from the first question to the end; driven by `driving`.

Nothing here opens a socket, sleeps or has a thread, so the same conversation serves `with` and `async with`.
"""

import math
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from controlplane.model.errors import ControlPlaneError
from controlplane.model.secret import Secret
from controlplane.sdk import calls
from controlplane.sdk.calls import Call, Exchange, Json, Pause
from controlplane.sdk.refusals import AnsweredError, DeniedError, EndedError, UnreachableError, WaitingError

_WAITS: Final = frozenset({"pending", "approved"})
_OVER: Final = frozenset({"ended", "context-changed", "not-found"})
"""After these no beat is taken any more; any other refusal may be another thing the next time."""
_NO_LONGER: Final = frozenset({403, 422})
_AGAIN: Final = (0.2, 1.0, 3.0)
"""Seconds before finishing is tried again."""
_LOOK: Final = "30s"
_BETWEEN: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for. `wait` is how long for people to agree: True is as long as the grant waits."""

    asked: Mapping[str, object]
    wait: bool | timedelta = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An active grant and its credentials, opened."""

    grant: Json
    credentials: Mapping[str, Mapping[str, Secret]]

    @property
    def id(self) -> str:
        """The grant's."""
        return str(self.grant["id"])

    @property
    def beat(self) -> timedelta | None:
        """Within which span it wants to hear that the task goes on; None where it does not."""
        due, issued = self.grant.get("heartbeat_due_at"), self.grant.get("issued_at")
        return datetime.fromisoformat(due) - datetime.fromisoformat(issued) if due and issued else None

    @property
    def span(self) -> timedelta:
        """How long it lasts."""
        ends, issued = self.grant["expires_at"], self.grant["issued_at"]
        return datetime.fromisoformat(ends) - datetime.fromisoformat(issued)


def enter(wish: Wish, now: Callable[[], float]) -> Exchange[Opened]:
    """Ask, wait for people if that is wished, collect and unwrap; `now` is in seconds, from anywhere.

    Raises: DeniedError, FrozenError, OverBudgetError: nothing was made; WaitingError: people have to agree first.
    """
    answer = yield from _asked(wish.asked)
    return (yield from _open(answer, wish.wait, now))


def resume(id: str, wait: bool | timedelta, now: Callable[[], float]) -> Exchange[Opened]:  # noqa: FBT001 # as in Wish
    """Collect what was asked for before. Raises: WaitingError, EndedError, DeniedError."""
    try:
        answer = yield calls.show(id)
    except (ControlPlaneError, GeneratorExit):
        raise
    except BaseException:  # a Ctrl-C before it is known as what it waits
        yield from _taken_back(id)
        raise
    return (yield from _open(answer, wait, now))


def leave(id: str, outcome: str, prove: str | None) -> Exchange[Json]:
    """End it: the grant as it is then. Tried for some seconds, because until it is heard the access lives on."""
    return (yield from _insisted(calls.finish(id, outcome=outcome, wait=prove)))["grant"]


def leave_task(task: str, outcome: str) -> Exchange[None]:
    """End what is open of a task; one that nothing was ever granted for is no error."""
    try:
        yield from _insisted(calls.finish_task(task, outcome=outcome))
    except AnsweredError as error:
        if error.told_code != "not-found":
            raise


def keep(opened: Opened, *, renew: bool) -> Exchange[ControlPlaneError | None]:
    """Beat three times as often as it has to be, and renew at half of its time.

    It ends with what said that the grant is over; or with None once nothing is left to be kept: no beats are wanted,
    and it has its entitlement's maximum.
    """
    beats, half = opened.beat is not None, opened.span / 2
    tick = (opened.beat or half) / 3
    every, ticks = max(1, round(half / tick)), 0
    while beats or renew:
        yield Pause(tick.total_seconds())
        ticks += 1
        due = [calls.heartbeat(opened.id)] if beats else []
        if renew and ticks % every == 0:
            due.append(calls.renew(opened.id))
        for call in due:
            try:
                yield call
            except AnsweredError as error:
                if error.told_code in _OVER:
                    return error
                if call.path.endswith("/renew") and error.http_status in _NO_LONGER:
                    renew = False
            except ControlPlaneError:  # nobody there, or no token just now: the next one may be heard
                continue
    return None


def _asked(asked: Mapping[str, object]) -> Exchange[Json]:
    key = _key()
    try:
        return (yield calls.request(asked, key=key))
    except UnreachableError:
        answer = yield calls.request(asked, key=key)  # the same key: whatever the first one made is told
    except (ControlPlaneError, GeneratorExit):
        raise
    except BaseException:  # a Ctrl-C: whether it was made is not known, the same key tells
        with suppress(ControlPlaneError):
            answer = yield calls.request(asked, key=key)
            yield from _taken_back(answer["grant"]["id"])
        raise
    if answer["grant"]["state"] in _WAITS or answer.keys() & {"wrapping_token", "credentials"}:
        return answer
    # What it opens was told once, to a connection that broke off.
    yield calls.finish(answer["grant"]["id"], outcome="failed")
    return (yield calls.request(asked, key=_key()))


def _open(answer: Json, wait: bool | timedelta, now: Callable[[], float]) -> Exchange[Opened]:  # noqa: FBT001
    id: str = answer["grant"]["id"]
    try:
        if answer["grant"]["state"] in _WAITS:
            yield from _agreed(answer["grant"], wait, now)
            answer = yield calls.collect(id)
        fields = yield from _fields(answer)
    except (WaitingError, GeneratorExit):
        raise
    except BaseException as error:  # whatever it is, a Ctrl-C too: nobody has what was made, so nobody will end it
        if not isinstance(error, DeniedError | EndedError):  # after these there is nothing
            yield from _taken_back(id)
        raise
    return Opened(grant=answer["grant"], credentials=fields)


def _taken_back(id: str) -> Exchange[None]:
    with suppress(ControlPlaneError):
        yield calls.finish(id, outcome="failed")


def _fields(answer: Json) -> Exchange[dict[str, dict[str, Secret]]]:
    if "credentials" in answer:  # delivery is inline
        return calls.fields_of({"data": answer["credentials"]})
    if token := answer.get("wrapping_token"):
        return calls.fields_of((yield calls.unwrap(Secret(token))))
    grant = answer["grant"]
    raise EndedError(409, {"code": "ended", "detail": f"{grant['id']} is {grant['state']}, and opens nothing any more"})


def _agreed(grant: Json, wait: bool | timedelta, now: Callable[[], float]) -> Exchange[None]:  # noqa: FBT001
    began, state, id = now(), str(grant["state"]), str(grant["id"])
    until = math.inf if wait is True else 0.0 if wait is False else wait.total_seconds()
    while state == "pending":
        if now() - began >= until:
            raise WaitingError(f"{id} waits for people to agree, until {grant['expires_at']} at most", id=id)
        left = until - (now() - began)
        look = _LOOK if left > 30 else f"{max(1, int(left))}s"  # noqa: PLR2004 # seconds, as in _LOOK
        state = (yield calls.show(id, wait=look))["grant"]["state"]
        if state == "pending":
            yield Pause(_BETWEEN)  # mostly the other side is what waits: unless too many do


def _insisted(call: Call) -> Exchange[Json]:
    for pause in _AGAIN:
        try:
            return (yield call)
        except UnreachableError:
            yield Pause(pause)
        except AnsweredError as error:
            if error.http_status < 500 and error.http_status != 429:  # noqa: PLR2004 # theirs, or too often
                raise
            yield Pause(pause)
    return (yield call)


def _key() -> str:
    return f"auto-{secrets.token_hex(16)}"
