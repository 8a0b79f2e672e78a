"""Carry out a conversation of `exchanges` in this thread, over urllib3."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import urllib3

from controlplane.sdk import calls
from controlplane.sdk.calls import Call, Exchange, Json, Pause, T
from controlplane.sdk.client import send
from controlplane.sdk.surroundings import Surroundings

CONNECT: Final = 5.0
ANSWER: Final = 90.0
"""Seconds: the other side waits half a minute for people, and a minute for a proof."""


class Line(Protocol):
    """Does one step of a conversation in this thread."""

    def __call__(self, step: Call | Pause) -> Json:
        """The answer; {} after a pause."""
        ...


def drive(talk: Exchange[T], line: Line) -> T:
    """Carry it out to its end; what is raised on the way is the conversation's to deal with."""
    try:
        step = next(talk)
        while True:
            try:
                answer = line(step)
            except BaseException as error:  # noqa: BLE001 # a Ctrl-C too: it may have something to take back
                step = talk.throw(error)
            else:
                step = talk.send(answer)
    except StopIteration as done:
        return done.value


@dataclass(slots=True)
class BlockingLine:
    """Over urllib3. `pause` is how a pause is made."""

    at: Surroundings
    pause: Callable[[float], Any] = time.sleep
    _http: urllib3.PoolManager = field(init=False)

    def __post_init__(self) -> None:
        timeout = urllib3.Timeout(connect=CONNECT, read=ANSWER)
        self._http = urllib3.PoolManager(retries=False, timeout=timeout)

    def __call__(self, step: Call | Pause) -> Json:
        """One step."""
        if isinstance(step, Pause):
            self.pause(step.seconds)
            return {}
        if step.wrapping is None:
            place = calls.address("the control plane's", self.at.addr)
            return send(self._http, place, step, calls.headers_of(step, self.at.identity(), None))
        place = calls.address("Vault's", self.at.vault.addr)
        timeout = urllib3.Timeout(connect=CONNECT, read=ANSWER)
        with urllib3.PoolManager(retries=False, timeout=timeout, ssl_context=self.at.vault.tls()) as http:
            return send(http, place, step, calls.headers_of(step, None, self.at.vault.namespace))

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()
