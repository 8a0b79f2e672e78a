"""What an apply has of the control plane whose settings are here: its canary, its cuts, and its audit log."""

import getpass
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controlplane.cli.output import say
from controlplane.model.entitlement import Revocability, Risk
from controlplane.model.errors import ConfigurationError
from controlplane.model.event import Kind

if TYPE_CHECKING:
    from controlplane.model.plan import Compiled, Plan
    from controlplane.settings import Settings
    from controlplane.sync.apply import Canary, Drain
    from controlplane.sync.ours import Origin
    from controlplane.wiring.plane import ControlPlane

_GIT_PATIENCE: Final = 5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What tries a new revision, and what ends the grants of an old one; None where nothing does."""

    canary: "Canary | None" = None
    drain: "Drain | None" = None


@contextmanager
def applying(plan: "Plan", directory: Path, *, canary: bool | None, cutting: str | None) -> Generator[Here]:
    """While `plan` is applied: what there is for it here. The audit log hears who applies it.

    `cutting` is the reason why the grants of retired revisions are cut, None where they are not.

    Raises: ConfigurationError: a canary or a cut is demanded, and there is no control plane here that could do it.
    """
    from controlplane.settings import load
    from controlplane.wiring.plane import wire

    settings = load()
    if plan.empty and not (cutting and plan.drains):
        yield Here()
        return
    if missing := _missing(settings):
        if canary or cutting:
            raise ConfigurationError(
                f"no {'canary can be tried' if canary else 'grant can be cut'} here, for {missing}"
            )
        if canary is None:
            say(f"No canary is tried, and the audit log here does not hear of it, for {missing}.")
        yield Here()
        return
    plane = wire(settings)
    try:
        told = {"by": getpass.getuser(), "commit": _commit(directory), "digest": plan.digest}
        _record(plane, Kind.PLAN_BEGUN, **told)
        tries = None if canary is False else _tried(plane, everything=bool(canary))
        if cutting is None:
            yield Here(canary=tries)
        else:
            with _working(plane):
                yield Here(canary=tries, drain=_cut(plane, plan.digest, cutting))
        _record(plane, Kind.PLAN_APPLIED, **told)
    finally:
        plane.close()


def _missing(settings: "Settings") -> str:
    """What a control plane would need that is not here; "" where nothing is missing."""
    from controlplane.stores.made import is_made
    from controlplane.wiring.identities import TASK_KEY

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


@contextmanager
def _working(plane: "ControlPlane") -> Generator[None]:
    """Work as one more replica: what is cut ends though no other should be running."""
    from controlplane.http.log import configure

    configure()  # on stderr: stdout is for data
    plane.worker.start()
    try:
        yield
    finally:
        plane.worker.stop()


def _cut(plane: "ControlPlane", digest: str, reason: str) -> "Drain":
    """Ends the live grants of a revision and says on stderr what has become of them."""
    from controlplane.model.cut import OPEN, Outcome

    def drain(old: "Origin") -> bool:
        incident = f"drain-{digest[:12]}"
        seen = plane.drain(getpass.getuser(), old.entitlement, old.revision, incident=incident, reason=reason)
        if seen is None:
            return True
        counts = seen.progress
        said = [f"{counts.total} cut by {seen.cut.id}", f"{counts.of(Outcome.VERIFIED)} verified gone"]
        if unproved := counts.of(Outcome.UNVERIFIABLE):
            said.append(f"{unproved} gone in Vault, and nobody else can be asked")
        if alive := counts.of(*OPEN):
            said += [f"{alive} not gone yet", *(f"{one.grant.id}: {one.why}" for one in seen.residual)]
        say(f"Revision {old.revision} of {old.entitlement}: {'; '.join(said)}.")
        return seen.cut.ended_at is not None

    return drain


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
