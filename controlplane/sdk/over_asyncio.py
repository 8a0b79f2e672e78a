"""Carry out a conversation of `exchanges` over asyncio: imported by `async with` only."""

import asyncio
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import cached_property

from controlplane.model.errors import ControlPlaneError
from controlplane.sdk import calls
from controlplane.sdk.access import Access
from controlplane.sdk.asyncio_http import send
from controlplane.sdk.calls import Call, Exchange, Json, Pause, T
from controlplane.sdk.driving import ANSWER
from controlplane.sdk.surroundings import Surroundings


async def adrive(talk: Exchange[T], line: "AsyncLine") -> T:
    """As `driving.drive`, awaiting each step; a cancellation, too, is the conversation's to deal with."""
    try:
        step = next(talk)
        while True:
            try:
                answer = await line.step(step)
            except BaseException as error:  # noqa: BLE001 # as there
                step = talk.throw(error)
            else:
                step = talk.send(answer)
    except StopIteration as done:
        return done.value


@dataclass
class AsyncLine:
    """Over asyncio; tokens are asked for in a thread, since a command or an endpoint may give them."""

    at: Surroundings

    async def step(self, step: Call | Pause) -> Json:
        """One step."""
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
            return {}
        if step.wrapping is None:
            place = calls.address("the control plane's", self.at.addr)
            token = await asyncio.to_thread(self.at.identity)
            return await send(place, step, calls.headers_of(step, token, None), tls=self._trust, within=ANSWER)
        place = calls.address("Vault's", self.at.vault.addr)
        headers = calls.headers_of(step, None, self.at.vault.namespace)
        return await send(place, step, headers, tls=self.at.vault.tls(), within=ANSWER)

    @cached_property
    def _trust(self) -> ssl.SSLContext | None:
        return ssl.create_default_context() if self.at.addr.startswith("https:") else None


class AsyncBeats:
    """Beats in a task of the event loop."""

    def __init__(self, access: Access, beating: Exchange[ControlPlaneError | None], line: AsyncLine) -> None:
        self._task = asyncio.create_task(_until_over(access, adrive(beating, line)))

    async def stop(self) -> None:
        """No beat begins after this."""
        self._task.cancel()
        await asyncio.wait([self._task])


async def _until_over(access: Access, beating: Awaitable[ControlPlaneError | None]) -> None:
    if (over := await beating) is not None:
        access.end(over)
