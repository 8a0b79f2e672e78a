"""Ask a target whether a credential still works, one file per kind of target.

A target that settings name is asked by the file called like its kind, which has a `prober(targets, login, clock,
prefix)`; nothing else lists them, and none is imported, nor its driver, where no target is of its kind.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, cast, runtime_checkable

from controlplane.model.errors import ConfigurationError, TargetUnavailableError
from controlplane.model.lease import Evidence, Target
from controlplane.model.orphan import Login
from controlplane.ports import Clock, Prober, Roster
from controlplane.probers.lines.line import NewLogin


class TargetProber(Prober, Roster, Protocol):
    """Asks all targets of one kind."""

    def advice(self, target: str) -> Sequence[tuple[str, str]]:
        """What could be better at a target, and what to do about it. Raises: TargetUnavailableError: no answer."""
        ...

    def close(self) -> None:
        """Close every connection."""
        ...


@runtime_checkable
class Weighs(Protocol):
    """A prober that can say what the management user of a connection may do, and what our groups may."""

    def excess(self, target: str, user: str) -> Sequence[str]:
        """What it may do that issuing does not need. Raises: TargetUnavailableError: no answer."""
        ...

    def given(self, target: str) -> Mapping[str, frozenset[str]]:
        """What each group of ours may do there, as `Scope.given` spells it. Raises: TargetUnavailableError."""
        ...


@runtime_checkable
class Names(Protocol):
    """A prober that can list whoever is named like ours, whatever else he is."""

    def named(self, target: str) -> Sequence[Login]:
        """Every such login. Raises: TargetUnavailableError: no answer."""
        ...


class Unconfigured:
    """Fits `ports.Prober`: for kinds of target of which the settings name none. It never calls anything gone."""

    def ask(self, target: Target, principal: str, *, issued_at: datetime) -> Evidence:
        """Raises: TargetUnavailableError: always."""
        del principal, issued_at
        raise TargetUnavailableError(f"no target called {target.name} is configured, so nobody can ask it")


Make = Callable[[Mapping[str, Any], NewLogin, Clock, str], TargetProber]


def prober_of(kind: str) -> Make:
    """What makes the prober of this kind. Raises: ConfigurationError: there is none."""
    try:
        module = importlib.import_module(f"{__name__}.{kind}")
        return cast("Make", module.prober)
    except (ImportError, AttributeError):
        raise ConfigurationError(f"nobody can ask a target of the kind {kind}: there is no probers/{kind}.py") from None


__all__ = ["Make", "Names", "TargetProber", "Unconfigured", "Weighs", "prober_of"]
