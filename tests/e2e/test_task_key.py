"""Keys are changed while grants are open: none of those is lost, and whoever holds an old key is refused (G19, I10)."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count

import pytest

from controlplane.dev.process import until
from controlplane.keys.files import SigningKey, load, load_or_create
from controlplane.model.errors import VaultRefusedError
from controlplane.model.grant import GrantId, State, TaskId, Why
from controlplane.model.request import GrantRequest
from controlplane.model.secret import Secret
from controlplane.testing.real import RealPlane
from controlplane.vault.client import Server, VaultClient
from controlplane.vault.policies import IDENTITIES
from controlplane.vault.session import JwtSession
from controlplane.wiring.identities import TASK_KEY
from controlplane.wiring.plane import ControlPlane, wire
from controlplane.world import RandomIds, SystemClock

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

KEY = {"name": "cards", "engine": "transit", "key": "cards", "operations": ["decrypt"]}
MANY = 6
NUMBERS = count()


@pytest.fixture
def plane(planes: Callable[..., RealPlane]) -> RealPlane:
    made = planes(f"tke{next(NUMBERS)}", "transit")  # the one before lives on, and two of one name share an epoch
    made.root.write(f"{made.mount('transit')}/keys/cards", {})
    made.entitle({"entitlement": "card-numbers", "scopes": [KEY], "delivery": "inline"})
    return made


def trust(plane: RealPlane, *keys: str) -> None:
    """What an operator writes: whose task JWTs the mount believes."""
    plane.root.write(
        f"auth/{plane.layout.auth_mount}/config",
        {
            "jwt_validation_pubkeys": [*keys],
            "jwt_supported_algs": ["ES256"],
            "jwks_url": "",
            "oidc_discovery_url": "",
        },
    )


def ask(plane: RealPlane, by: ControlPlane, task: str) -> GrantId:
    asked = GrantRequest(entitlement="card-numbers", task=TaskId(task), intent="answer-question")
    return by.request(plane.who(), asked).grant.id


def state(plane: ControlPlane, id: GrantId) -> State:
    grant = plane.store.grant(id)
    assert grant is not None
    return grant.state


def test_g19_two_keys_are_believed_while_one_takes_the_others_place_and_then_only_the_new_one(plane: RealPlane) -> None:
    file = plane.settings.keys.directory / TASK_KEY
    old = load(file).public_pem
    file.unlink()
    new = load_or_create(file).public_pem
    trust(plane, old, new)
    successor = wire(plane.settings)
    try:
        with ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(ask, plane, by, f"T-{number}-{who}")
                for number in range(MANY)
                for who, by in enumerate((plane.plane, successor))
            ]
            trust(plane, new, old)  # amid them
            grants = [each.result() for each in asked]
        trust(plane, new)
        with pytest.raises(VaultRefusedError):
            ask(plane, plane.plane, "by-the-old-key")
        grants.append(ask(plane, successor, "by-the-new-key"))
        assert len(set(grants)) == 2 * MANY + 1
        for id in grants:
            assert state(successor, id) is State.ACTIVE  # what the old key opened goes on, and can be ended
            successor.finish(plane.who(), id, Why.COMPLETED)
        assert until(lambda: all(state(successor, id) is State.REVOKED for id in grants), timedelta(seconds=90))
    finally:
        successor.close()


def test_i10_after_every_key_was_changed_a_control_plane_that_somebody_else_holds_can_do_nothing(
    plane: RealPlane,
) -> None:
    """As docs/runbook.md says it: new keys, `vault bootstrap`, and an end to the tokens of the old ones."""
    held = plane.grant("card-numbers")
    files = {name: plane.settings.keys.directory / f"{name}.pem" for name in IDENTITIES}
    stolen = {name: load(file) for name, file in files.items()}
    tokens = [logged_in(plane, name, key) for name, key in stolen.items()]
    for file in (*files.values(), plane.settings.keys.directory / TASK_KEY):
        file.unlink()
    plane.bootstrap()
    for name in IDENTITIES:
        plane.root.write(f"sys/leases/revoke-prefix/auth/{plane.layout.auth_mount}-{name}/login", {})
    for token in tokens:
        with pytest.raises(VaultRefusedError):
            looked_up(plane, token)
    for name, key in stolen.items():
        with pytest.raises(VaultRefusedError):
            logged_in(plane, name, key)
    with pytest.raises(VaultRefusedError):
        ask(plane, plane.plane, "by-the-old-keys")
    plane.plane.worker.stop()
    successor = wire(plane.settings)
    successor.worker.start()
    try:
        grants = [held.grant.id, ask(plane, successor, "by-the-new-keys")]
        assert {state(successor, id) for id in grants} == {State.ACTIVE}
        for id in grants:
            successor.finish(plane.who(), id, Why.COMPLETED)
        assert until(lambda: {state(successor, id) for id in grants} == {State.REVOKED}, timedelta(seconds=90))
    finally:
        successor.worker.stop()
        successor.close()


def logged_in(plane: RealPlane, name: str, key: SigningKey) -> Secret:
    mount = f"{plane.layout.auth_mount}-{name}"
    session = JwtSession(Server(plane.openbao.addr), mount, name, key, clock=SystemClock(), ids=RandomIds())
    try:
        return session()
    finally:
        session.close()


def looked_up(plane: RealPlane, token: Secret) -> None:
    client = VaultClient(Server(plane.openbao.addr), lambda: token)
    try:
        client.read("auth/token/lookup-self")
    finally:
        client.close()
