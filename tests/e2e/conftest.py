"""What the stories have in common: the shared servers' witness, and planes over any engines."""

import os
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from controlplane.dev.issuer import DevIssuer, mint
from controlplane.dev.openbao import OpenBao
from controlplane.dev.stack import Stack
from controlplane.model.secret import Secret
from controlplane.testing.real import RealPlane
from controlplane.testing.replicated import ReplicatedPlane
from controlplane.testing.served import Witness, witness
from controlplane.vault.client import VaultClient
from controlplane.world import RandomIds, SystemClock

Planes = Callable[..., RealPlane]


@pytest.fixture(scope="module", autouse=True)
def several(request: pytest.FixtureRequest) -> Generator[None]:
    """For `make test-replicas` the control planes that a story makes are several processes over PostgreSQL."""
    story = cast("ModuleType", request.module)  # pyright: ignore[reportUnknownMemberType] # pytest does not say
    with pytest.MonkeyPatch.context() as patch:
        if os.environ.get("REPLICAS") and "ServedPlane" in vars(story):
            patch.setattr(story, "ServedPlane", ReplicatedPlane)
        yield


@pytest.fixture(scope="module")
def planes(
    tmp_path_factory: pytest.TempPathFactory, openbao: OpenBao, vault_root: VaultClient, issuer: DevIssuer
) -> Generator[Planes]:
    """Makes control planes: `planes("es", "ssh")` has names with `es` and the engine `ssh`; `more` as RealPlane has."""
    with ExitStack() as running:

        def make(prefix: str, *words: str, root: VaultClient = vault_root, **more: Any) -> RealPlane:
            directory: Path = tmp_path_factory.mktemp(f"plane-{prefix}")
            plane = RealPlane(
                directory=directory, prefix=prefix, words=words, openbao=openbao, root=root, issuer=issuer, **more
            )
            plane.start()
            running.callback(plane.stop)
            return plane

        yield make


@pytest.fixture
def seer(stack: Stack) -> Generator[Witness]:
    """Begins to look with the test: what an earlier one left on the servers is not this one's."""
    looking = witness(stack)
    yield looking
    looking.close()


@pytest.fixture
def responder(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Secret:
    """A token of the responder `ann`; commands that are run in this process are hers, at the stack's control plane."""
    issuer = stack.issuer
    token = mint(issuer.key, issuer.url, "ann", now=SystemClock().now(), ids=RandomIds(), claims={"role": "responder"})
    monkeypatch.setenv("SHORTHOLD_ADDR", stack.api)
    monkeypatch.setenv("SHORTHOLD_TOKEN", token.reveal())
    return token
