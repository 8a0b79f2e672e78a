"""Every route does what `/openapi.json` says of it, for whatever schemathesis can think of (A03, A14, A20, A24, A25).

The routes come from the description itself: a new one is tested as soon as it is there.
"""

import itertools
import os
from collections import Counter
from collections.abc import Generator
from typing import Any, Final, cast

import pytest
import schemathesis
from hypothesis import settings
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.http.app import create_app
from controlplane.http.rates import rates
from controlplane.model.access import Role
from controlplane.model.rate import parse_rate
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import AGENT, FakePlane
from controlplane.wiring.plane import ControlPlane

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "10"))
"""For each route and identity; `make fuzz` wants more."""
LONG: Final = 100
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
NOBODY: Final = "nobody"
IDENTITIES: Final = (NOBODY, "agent", *(role.value for role in Role))
PROMISED: Final = ["2xx", "401", "403", "404", "409", "423", "429"]
"""What a well-formed request may be answered with; 423, because another one may have frozen it."""
CONFIG: Final[dict[str, Any]] = {
    "checks": {"positive_data_acceptance": {"expected-statuses": PROMISED}},
    "operations": [
        {
            # A selection has a grammar, and a schema has none: most texts of the right length are not of it.
            "include-name": name,
            "checks": {"positive_data_acceptance": {"expected-statuses": [*PROMISED, "422"]}},
        }
        for name in ("POST /v1/freezes", "POST /v1/incidents/preview")
    ]
    + [
        {
            # No text that somebody thinks of is signed.
            "include-name": "POST /v1/signals",
            "checks": {"positive_data_acceptance": {"expected-statuses": [*PROMISED, "400"]}},
        }
    ],
    "seed": SEED,
    "generation": {"max-examples": EXAMPLES, "deterministic": EXAMPLES < LONG, "with-security-parameters": False},
}


def plane() -> FakePlane:
    """A control plane with one grant, what may be had at once, and what people must agree to."""
    agreed: dict[str, Any] = {"risk": "high", "approval": {"quorum": 1, "from": ["group:oncall"]}}
    made = FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="orders-refund", **agreed))
    made.ask()
    return made


OFTEN: Final = parse_rate("99999/s")
APP: Final = create_app(cast("ControlPlane", plane()), worker=False, limits=rates(OFTEN, OFTEN))
ANSWERS: Final[Counter[int]] = Counter()
"""How many answers there were of each status, over all tests of this file."""


@schemathesis.serializer("application/secevent+jwt")
def _token(context: object, value: object) -> bytes:
    """Any text, where a security event token should be."""
    del context
    return str(value).encode()


class Counted:
    """The application, with its answers counted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                ANSWERS[message["status"]] += 1
            await send(message)

        await self._app(scope, receive, counted)


APP.add_middleware(Counted)


@pytest.fixture(scope="module", autouse=True)
def told(pytestconfig: pytest.Config) -> Generator[None]:
    """Say how many cases there were, and how they were answered: `make fuzz` is asked for a figure."""
    yield
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(ANSWERS.items()))
    capture: Any = pytestconfig.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\nseed {SEED}: {ANSWERS.total()} cases answered: {statuses}")  # noqa: T201 # for whoever runs it


@pytest.fixture(autouse=True)
def anew() -> None:
    """What one test did, a freeze of everything perhaps, is not met by the next."""
    APP.state.plane = plane()


_tokens = itertools.count()
_configured: Any = schemathesis.Config
schema: Any = schemathesis.openapi.from_asgi("/openapi.json", APP, config=_configured.from_dict(CONFIG))


def headers(identity: str) -> dict[str, str]:
    """A fresh token each time: one asks for one grant."""
    if identity == NOBODY:
        return {}
    jti = f"fuzz-{next(_tokens)}"
    if identity == "agent":
        token = APP.state.plane.issuer.mint(AGENT, jti=jti)
    else:
        token = APP.state.plane.issuer.mint(f"{identity}-1", jti=jti, role=identity, groups=["oncall"])
    return {"Authorization": f"Bearer {token.reveal()}"}


@pytest.mark.parametrize("identity", IDENTITIES)
@schema.parametrize()
def test_every_answer_is_as_described_and_none_is_a_fault(case: Any, identity: str) -> None:  # noqa: ANN401
    case.call_and_validate(headers=headers(identity))


machine: Any = schema.as_state_machine()


class Agent(machine):
    """One agent, with what the answers before have named: its grants, pages of them, and how they ended."""

    def setup(self) -> None:
        APP.state.plane = plane()

    def before_call(self, case: Any) -> None:  # noqa: ANN401 # schemathesis has no types for it
        case.query.pop("wait", None)  # nobody works here, so each would be waited for to its end

    def get_call_kwargs(self, case: Any) -> dict[str, Any]:  # noqa: ANN401
        del case
        return {"headers": headers("agent")}


TestWhatFollowsFromAnAnswer: Any = Agent.TestCase
TestWhatFollowsFromAnAnswer.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=10, deadline=None, derandomize=EXAMPLES < LONG, database=None
)
