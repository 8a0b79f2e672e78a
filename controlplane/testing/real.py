"""A control plane in this process over a real OpenBao, under names of its own and with any engines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from controlplane.dev.issuer import DevIssuer, mint
from controlplane.dev.openbao import OpenBao
from controlplane.dev.process import until
from controlplane.dev.shipped import shipped
from controlplane.engines import engines
from controlplane.grants.epoch import ROUND
from controlplane.grants.issue import Delivered
from controlplane.issuers.oidc import OidcOptions
from controlplane.keys.files import load_or_create
from controlplane.model.duration import parse_duration
from controlplane.model.event import Kind
from controlplane.model.grant import Grant, State, TaskId, Why
from controlplane.model.identity import VerifiedClaims
from controlplane.model.plan import Compiled, Layout
from controlplane.model.request import GrantRequest
from controlplane.ports import Clock
from controlplane.settings import KeysSettings, Settings, StoreSettings, VaultIdentity, VaultSettings, WorkerSettings
from controlplane.sync.apply import ApplySync
from controlplane.sync.compile import compiled
from controlplane.sync.plan import PlanSync
from controlplane.testing.entitlements import document, entitlement
from controlplane.vault.bootstrap import Trust, bootstrap
from controlplane.vault.client import Server, VaultClient, part
from controlplane.vault.policies import IDENTITIES
from controlplane.vault.roles import VaultRoles
from controlplane.wiring.identities import TASK_KEY, identity_client
from controlplane.wiring.plane import ControlPlane, wire
from controlplane.world import RandomIds, SystemClock

AGENT: Final = "repo:acme/agent:ref:refs/heads/main"
_PATIENCE: Final = timedelta(seconds=90)


@dataclass(kw_only=True)
class RealPlane:
    """`root` may do everything at `openbao`. All mounts and names begin with `prefix`; `stop` removes the mounts."""

    directory: Path
    prefix: str
    words: Sequence[str]
    openbao: OpenBao
    root: VaultClient
    issuer: DevIssuer
    url: str | None = None
    """Of its store; SQLite in `directory` where it is not given."""
    machine: Clock | None = None
    """What its machine's clock shows, where that is not the time."""
    namespace: str | None = None
    """Of the server, where it is not the root; `root` looks into the same one."""
    plane: ControlPlane = field(init=False)
    settings: Settings = field(init=False)

    @property
    def layout(self) -> Layout:
        """Its mounts and names."""
        return self.settings.vault.layout

    def mount(self, word: str) -> str:
        """Where the engine is mounted."""
        return self.layout.mounts[word]

    def start(self) -> None:
        """Bootstrap the server with one identity of each kind, and start the worker."""
        keys = self.directory / "keys"
        keys.mkdir(mode=0o700)
        (self.directory / "roles").mkdir()
        auth_mount = f"shorthold-{self.prefix}"
        own = {
            name: VaultIdentity(mount=f"{auth_mount}-{name}", role=name, key_file=keys / f"{name}.pem")
            for name in IDENTITIES
        }
        self.settings = Settings(
            roles=self.directory / "roles",
            policies=shipped("roles") / "policies",
            environment="dev",
            store=StoreSettings(
                url=self.url or f"sqlite:///{self.directory / 'shorthold.db'}", spool=self.directory / "spool"
            ),
            keys=KeysSettings(directory=keys),
            issuers=(OidcOptions(name="dev", url=self.issuer.url, audiences=("shorthold",)),),
            worker=WorkerSettings(tick=timedelta(milliseconds=200), reconcile=timedelta(seconds=1)),
            vault=VaultSettings(
                addr=self.openbao.addr,
                namespace=self.namespace,
                prefix=self.prefix,
                auth_mount=auth_mount,
                mounts={word: f"{word}-{self.prefix}" for word in self.words},
                max_request_duration=timedelta(seconds=5),
                broker=own["broker"],
                sync=own["sync"],
                param=own["param"],
                drift=own["drift"],
                rotate=own["rotate"],
            ),
        )
        self.bootstrap()
        self.plane = wire(self.settings, machine=self.machine)
        self.plane.worker.start()

    def bootstrap(self) -> None:
        """Set the server up; again after a connection is made, so that it has a prober. Repeating it is fine."""
        keys = self.settings.keys.directory
        pems = {f"{name}_key_pem": load_or_create(keys / f"{name}.pem").public_pem for name in IDENTITIES}
        task = load_or_create(keys / TASK_KEY).public_pem
        bootstrap(self.root, self.layout, Trust(task_key_pem=task, **pems), apply=True)

    def stop(self) -> None:
        """Stop it, and take its mounts, and every lease that hangs from them, out of the server."""
        self.plane.worker.stop()
        self.plane.close()
        for mount in self.layout.mounts.values():
            self.root.delete(f"sys/mounts/{mount}")
        for mount in part(self.root.read("sys/auth"), "data"):
            if mount.startswith(self.layout.auth_mount):
                self.root.delete(f"sys/auth/{mount.rstrip('/')}")

    def entitle(self, *documents: Mapping[str, Any]) -> list[Compiled]:
        """Sync exactly these entitlements, by the identity that may only sync; each as in `testing.entitlements`."""
        layout = self.layout
        for old in self.settings.roles.glob("*.yaml"):
            old.unlink()
        wanted = [compiled(entitlement(**changes), layout, engines()) for changes in documents]
        for changes in documents:
            text = json.dumps(document(**changes))
            (self.settings.roles / f"{changes['entitlement']}.yaml").write_text(text, encoding="utf-8")
        with identity_client(self.settings.vault, self.settings.vault.sync) as client:  # pyright: ignore[reportArgumentType] # it is set
            roles = VaultRoles(layout, client)
            plan = PlanSync(roles=roles, layout=layout)
            ApplySync(roles=roles, plan=plan)(wanted, plan(wanted))
        names = {one.naming.base for one in wanted}
        if not until(lambda: {one.naming.base for one in self.plane.entitlements.all()} == names, _PATIENCE):
            raise AssertionError("the control plane does not take the entitlements up")
        return wanted

    def grant(self, name: str, *, ttl: str | None = None, **parameters: str) -> Delivered:
        """A grant for the agent. Raises what `RequestGrant` raises."""
        asked = GrantRequest(
            entitlement=name,
            task=TaskId("T-1"),
            intent="answer-question",
            ttl=None if ttl is None else parse_duration(ttl),
            parameters=parameters,
        )
        return self.plane.request(self.who(), asked)

    def who(self) -> VerifiedClaims:
        """The agent, by a token of its own."""
        now = SystemClock().now()
        return self.plane.identify(mint(self.issuer.key, self.issuer.url, AGENT, now=now, ids=RandomIds()))

    def unwrap(self, delivered: Delivered) -> dict[str, str]:
        """The fields of its only credential, as the agent gets them at Vault. An unwrapped token is used up."""
        if delivered.wrapping_token is None:
            raise AssertionError("nothing was wrapped")
        token = delivered.wrapping_token
        client = VaultClient(Server(self.openbao.addr, namespace=self.namespace), lambda: token)
        try:
            (fields,) = part(client.write("sys/wrapping/unwrap", {}), "data").values()
        finally:
            client.close()
        return json.loads(json.dumps(fields))

    def finished(self, delivered: Delivered) -> Grant:
        """The grant once it is revoked."""
        self.end(delivered)
        return self.ended(delivered)

    def end(self, delivered: Delivered) -> None:
        """Finish it, and do not wait."""
        self.plane.finish(self.who(), delivered.grant.id, Why.COMPLETED)

    def ended(self, delivered: Delivered) -> Grant:
        """The grant once it is revoked by itself."""
        if not until(lambda: self.stands(delivered).state is State.REVOKED, _PATIENCE):
            raise AssertionError(f"it is not revoked: {self.stands(delivered).failing}")
        return self.stands(delivered)

    def stands(self, delivered: Delivered) -> Grant:
        """The grant as the store has it now."""
        grant = self.plane.store.grant(delivered.grant.id)
        if grant is None:
            raise AssertionError("the store has lost it")
        return grant

    def compare(self) -> None:
        """Wait until the reconciler has compared the store with the server, once more and from the beginning."""
        before = self.plane.store.mark(ROUND)
        with self.plane.store.transaction() as tx:
            tx.append(self.plane.finish.record(Kind.GRANT_EXPLAINED))  # the mark rises with the chain
        if not until(lambda: self.plane.store.mark(ROUND) > before, _PATIENCE):
            raise AssertionError("the reconciler does not come round")

    def events(self) -> list[str]:
        """The kinds of all events so far."""
        return [link.event.kind for link in self.plane.store.links()]
