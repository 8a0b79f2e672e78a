"""Review a directory of entitlements: load, lint and compile it, for whoever wants to apply or to grant from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from controlplane.model.access import AccessRule
from controlplane.model.errors import BrokenEntitlementsError
from controlplane.model.identity import KnownIssuer
from controlplane.model.plan import Compiled, Layout
from controlplane.ports import Engine
from controlplane.sync.compile import compiled
from controlplane.sync.lint import Surroundings, lint
from controlplane.sync.load import load
from controlplane.sync.problem import Problem, Severity
from controlplane.sync.spoilt import spoilt
from controlplane.sync.tiers import load as load_tiers
from controlplane.sync.undercut import undercuts


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What may be used, compiled and by name; and everything that is wrong, errors and warnings, in order."""

    compiled: tuple[Compiled, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep an entitlement out."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)

    def whole(self) -> tuple[Compiled, ...]:
        """All entitlements, if all are sound: to Vault, one that is left out is one that nobody wants any more.

        Raises: BrokenEntitlementsError: the first problems, and how many there are.
        """
        if self.errors:
            shown = "\n".join(f"  {problem}" for problem in self.errors[:_SHOWN])
            more = f"\n  … and {len(self.errors) - _SHOWN} more" if len(self.errors) > _SHOWN else ""
            raise BrokenEntitlementsError(f"nothing was done, because entitlements have errors:\n{shown}{more}")
        return self.compiled


_SHOWN = 20


def review(
    directory: Path,
    layout: Layout,
    engines: Mapping[str, Engine],
    *,
    today: date,
    issuers: Mapping[str, KnownIssuer] | None = None,
    access: Sequence[AccessRule] | None = None,
) -> Review:
    """Look at every file of `directory`; `issuers` and `access` are the configured ones, where they are known.

    Raises: ConfigurationError: the directory or its tiers cannot be read.
    """
    loaded = load(directory, {word: engine.scope_model for word, engine in engines.items()})
    around = Surroundings(
        tiers=load_tiers(directory),
        layout=layout,
        revocability={word: engine.revocability for word, engine in engines.items()},
        today=today,
        issuers=issuers,
        access=access,
        undercuts=undercuts(loaded.entitlements, engines),
        spoilt=spoilt(loaded.entitlements),
    )
    problems = list(loaded.problems)
    sound: list[Compiled] = []
    for source in loaded.sources:
        found = lint(source, around)
        problems += found
        if all(problem.severity is Severity.WARNING for problem in found):
            sound.append(compiled(source.entitlement, layout, engines))
    return Review(
        compiled=tuple(sorted(sound, key=lambda item: item.entitlement.name)), problems=tuple(sorted(problems))
    )
