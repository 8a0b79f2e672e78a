"""What an apply has of the control plane whose settings are here: its canary, and its audit log."""

import getpass
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controlplane.cli.output import say
from controlplane.model.entitlement import Revocability, Risk
from controlplane.model.errors import ConfigurationError
from controlplane.model.event import Kind

if TYPE_CHECKING:
    from controlplane.model.plan import Compiled, Plan
    from controlplane.settings import Settings
    from controlplane.sync.apply import Canary
    from controlplane.wiring import ControlPlane

_GIT_PATIENCE: Final = 5  # seconds


@contextmanager
def applying(plan: "Plan", directory: Path, *, canary: bool | None) -> Generator["Canary | None"]:
    """While `plan` is applied: what tries a new revision, None where nothing does. The audit log hears who applies it.

    Raises: ConfigurationError: a canary is demanded, and there is no control plane here that could issue one.
    """
    from controlplane.settings import load
    from controlplane.wiring import wire

    settings = load()
    if plan.empty:
        yield None
        return
    if missing := _missing(settings):
        if canary:
            raise ConfigurationError(f"no canary can be tried here, for {missing}")
        if canary is None:
            say(f"No canary is tried, and the audit log here does not hear of it, for {missing}.")
        yield None
        return
    plane = wire(settings)
    try:
        told = {"by": getpass.getuser(), "commit": _commit(directory), "digest": plan.digest}
        _record(plane, Kind.PLAN_BEGUN, **told)
        yield None if canary is False else _tried(plane, everything=bool(canary))
        _record(plane, Kind.PLAN_APPLIED, **told)
    finally:
        plane.close()


def _missing(settings: "Settings") -> str:
    """What a control plane would need that is not here; "" where nothing is missing."""
    from controlplane.stores.made import is_made
    from controlplane.wiring import TASK_KEY

    if settings.vault.broker is None or not settings.vault.broker.key_file.exists():
        return "vault.broker or its key is not here"
    if not (settings.keys.directory / TASK_KEY).exists():
        return "the task key is not here"
    return "" if is_made(settings.store.url) else "the store is not here"


def _tried(plane: "ControlPlane", *, everything: bool) -> "Canary":
    """The canary, for what can be taken back; at high risk only where that is demanded."""
    from controlplane.engines import engines

    def attempt(compiled: "Compiled") -> None:
        ends = {engines()[scope.engine].revocability for scope in compiled.entitlement.scopes}
        wanted = everything or compiled.entitlement.risk is not Risk.HIGH
        # A scope with parameters has no role before somebody asks for it with their values.
        if wanted and ends <= {Revocability.PROVABLE, Revocability.RECALLABLE} and not compiled.entitlement.parameters:
            plane.canary(compiled)

    return attempt


def _record(plane: "ControlPlane", kind: Kind, **told: str | None) -> None:
    with plane.store.transaction() as tx:
        tx.append(plane.canary.record(kind, **told))


def _commit(directory: Path) -> str | None:
    """The commit of the entitlements, with `+` where files differ from it; None where nobody can tell."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(  # noqa: S603 # git, with words of ours and a directory
                [git, "-C", str(directory), *words], capture_output=True, text=True, timeout=_GIT_PATIENCE, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    commit = ask("rev-parse", "HEAD")
    return f"{commit}+" if commit and ask("status", "--porcelain", "--", ".") else commit
