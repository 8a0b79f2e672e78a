"""(b) The bare sequence: the calls that a grant is made of, with our compiled role, and nothing around them."""

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from benchmarks.target import UserWatch
from benchmarks.way import Held
from benchmarks.wire import Wire, token
from controlplane.dev.issuer import NAME
from controlplane.dev.stack import LAYOUT, Stack
from controlplane.grants.issue import ASSERTION_LIFETIME
from controlplane.keys.files import SigningKey, load
from controlplane.model.plan import Compiled
from controlplane.vault.session import JwtSession
from controlplane.vault.transport import Server
from controlplane.wiring.identities import TASK_KEY
from controlplane.world import RandomIds, SystemClock

_LIFETIME: Final = int(ASSERTION_LIFETIME / timedelta(seconds=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """The task key and the broker's own login, in a client that checks nothing, saves nothing, says nothing."""

    stack: Stack
    subject: str
    compiled: Compiled
    name: str = "bare"

    def agent(self) -> "BareAgent":
        """See Way."""
        keys = self.stack.home.part("keys")
        broker = JwtSession(
            Server(self.stack.vault_addr),
            f"{LAYOUT.auth_mount}-broker",
            "broker",
            load(keys / "broker.pem"),
            clock=SystemClock(),
            ids=RandomIds(),
        )
        try:
            own = broker().reveal()
        finally:
            broker.close()
        wires = (Wire(self.stack.vault_addr), Wire(self.stack.vault_addr))
        return BareAgent(self, load(keys / TASK_KEY), own, *wires)

    def watch(self) -> UserWatch:
        """See Way."""
        return UserWatch(self.stack.postgres.owner)


class BareAgent:
    """Fits Agent: it plays broker and agent, each on a connection of its own."""

    def __init__(self, way: Bare, task_key: SigningKey, broker_token: str, broker: Wire, agent: Wire) -> None:
        self._way, self._key, self._broker, self._agent = way, task_key, broker, agent
        self._as_broker = token(broker_token)
        self._ids = RandomIds()

    def prepare(self, grants: int) -> None:
        """See Agent. Nothing is needed."""

    def ask(self) -> Held:
        """See Agent."""
        naming, scopes = self._way.compiled.naming, self._way.compiled.entitlement.scopes
        login = {"role": naming.base, "jwt": self._assertion()}
        auth = self._broker.call("POST", f"/v1/auth/{LAYOUT.auth_mount}/login", login)["auth"]
        accessor, task = auth["accessor"], token(auth["client_token"])
        self._broker.call("POST", "/v1/auth/token/lookup-accessor", {"accessor": accessor}, self._as_broker)
        payload = {
            scope.name: self._read(f"{LAYOUT.mounts[scope.engine]}/creds/{naming.scope(scope.name)}", task)
            for scope in scopes
        }
        wrap = {**task, "X-Vault-Wrap-TTL": "60"}
        wrapped = self._broker.call("POST", "/v1/sys/wrapping/wrap", payload, wrap)["wrap_info"]["token"]
        opened = self._agent.call("POST", "/v1/sys/wrapping/unwrap", {}, token(wrapped))["data"]["orders"]
        return Held(opened["username"], accessor, opened["password"])

    def finish(self, held: Held) -> None:
        """See Agent."""
        ended = {"accessor": held.handle}
        self._broker.call("POST", "/v1/auth/token/revoke-accessor", ended, self._as_broker, status=204)

    def close(self) -> None:
        """See Agent."""
        self._broker.close()
        self._agent.close()

    def _read(self, path: str, task: dict[str, str]) -> dict[str, str]:
        return self._broker.call("GET", f"/v1/{path}", headers=task)["data"]

    def _assertion(self) -> str:
        now, id = int(time.time()), self._ids.new("gr")
        naming, subject = self._way.compiled.naming, self._way.subject
        return self._key.sign(
            {
                "aud": LAYOUT.audience,
                "sub": "wl_benchmark",
                "jti": id,
                "iat": now,
                "nbf": now,
                "exp": now + _LIFETIME,
                "workload": f"{NAME} {subject}",
                "grant": id,
                "issuer": NAME,
                "subject": subject,
                "entitlement": naming.entitlement,
                "revision": naming.revision,
                "task": "T-1",
                "intent": self._way.compiled.entitlement.intents[0],
            }
        ).reveal()
