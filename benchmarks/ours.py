"""(c) Our API with everything on: ask, open the wrap at OpenBao, finish."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from benchmarks.way import Held
from benchmarks.wire import Wire, WrongAnswerError, bearer, token
from controlplane.dev.stack import Stack
from controlplane.model.plan import Compiled
from controlplane.model.secret import Secret

_LOOK_EVERY: Final = 0.02  # seconds
_PATIENCE: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """The stack's own control plane, as `shorthold dev up` starts it."""

    stack: Stack
    compiled: Compiled
    token: Callable[[], Secret]
    name: str = "ours"

    def agent(self) -> "OurAgent":
        """See Way."""
        asked = {
            "entitlement": self.compiled.entitlement.name,
            "task": "T-1",
            "intent": self.compiled.entitlement.intents[0],
            "reason": "benchmark",
        }
        return OurAgent(Wire(self.stack.api), Wire(self.stack.vault_addr), self.token, asked)

    def watch(self) -> "ReceiptWatch":
        """See Way."""
        return ReceiptWatch(Wire(self.stack.api), self.token())


class OurAgent:
    """Fits Agent: `POST /v1/grants`, unwrap, `POST …/finish`."""

    def __init__(self, api: Wire, vault: Wire, mint: Callable[[], Secret], asked: dict[str, Any]) -> None:
        self._api, self._vault, self._mint, self._asked = api, vault, mint, asked
        self._own: dict[str, str] = {}
        self._waiting: list[dict[str, str]] = []

    def prepare(self, grants: int) -> None:
        """See Agent. One token asks for one grant."""
        self._waiting += [bearer(self._mint().reveal()) for _ in range(grants)]

    def ask(self) -> Held:
        """See Agent."""
        self._own = self._waiting.pop()
        answer = self._api.call("POST", "/v1/grants", self._asked, self._own, status=201)
        wrapped = token(answer["wrapping_token"])
        opened = self._vault.call("POST", "/v1/sys/wrapping/unwrap", {}, wrapped)["data"]["orders"]
        return Held(opened["username"], answer["grant"]["id"], opened["password"])

    def finish(self, held: Held) -> None:
        """See Agent."""
        path = f"/v1/grants/{held.handle}/finish"
        self._api.call("POST", path, {"outcome": "completed"}, self._own, status=202)

    def close(self) -> None:
        """See Agent."""
        self._api.close()
        self._vault.close()


@dataclass(slots=True)
class ReceiptWatch:
    """Fits Watch: reads receipts when the slice is over, so that looking costs nothing while it runs."""

    api: Wire
    token: Secret
    _expected: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    def expect(self, held: Held, finished_at: float) -> None:
        """See Watch."""
        self._expected.append((held.handle, finished_at))

    def seen_gone(self) -> Sequence[tuple[float, float]]:
        """See Watch. The control plane says since when a grant is revoked, and every lease must be verified."""
        deadline = time.monotonic() + _PATIENCE
        return [(sent_at, self._revoked_at(id, deadline)) for id, sent_at in self._expected]

    def close(self) -> None:
        """See Watch."""
        self.api.close()

    def _revoked_at(self, id: str, deadline: float) -> float:
        while time.monotonic() < deadline:
            grant = self.api.call("GET", f"/v1/grants/{id}", headers=bearer(self.token.reveal()))["grant"]
            if grant["state"] == "revoked":
                if not grant["receipt"]["verified"]:
                    raise WrongAnswerError("a receipt is not verified")
                return datetime.fromisoformat(grant["revoked_at"]).timestamp()
            time.sleep(_LOOK_EVERY)
        raise WrongAnswerError("a grant is not revoked")
