"""Lint: what is wrong with the policies of a directory, as they stand and beside which entitlements."""

from collections.abc import Collection
from pathlib import Path

from controlplane.policies.load import SLICES, Policies, load, missing
from controlplane.sync.problem import Problem


def lint(directory: Path, entitlements: Collection[str]) -> tuple[Policies, tuple[Problem, ...]]:
    """The policies, and every problem in order; `entitlements` are the names of all that there are."""
    try:
        found = load(directory)
    except OSError as error:
        found = missing(directory, error)
    orphans = [
        Problem(
            f"policies/{SLICES}/{name}.cedar",
            1,
            1,
            "unknown-entitlement",
            f"there is no entitlement {name}, so these policies hold for nothing: rename or remove the file",
        )
        for name in found.slices
        if name not in entitlements
    ]
    return found, tuple(sorted([*found.problems, *orphans]))
