"""Engines: one kind of target each. A file in this folder with an `ENGINE` is one; nothing else lists them.

It may bring its own prober (`PROBER`) and the words for its patterns (`model.wording.explained`).
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import cast

from controlplane.model.canonical import JsonObject
from controlplane.model.entitlement import Scope
from controlplane.model.plan import Layout, Places
from controlplane.ports import Clock, Engine, Prober


@cache
def engines() -> Mapping[str, Engine]:
    """Every engine by its word, which is its file's name. Packages in this folder are no engines.

    Raises: LookupError: a file without `ENGINE`, or whose word is not its name: a fault in the code.
    """
    found: dict[str, Engine] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            continue
        engine: Engine | None = getattr(importlib.import_module(f"{__name__}.{module.name}"), "ENGINE", None)
        if engine is None or engine.word != module.name:
            raise LookupError(f"engines/{module.name}.py must have an ENGINE whose word is {module.name!r}")
        found[engine.word] = engine
    return MappingProxyType(found)


@cache
def scope_models() -> Mapping[str, type[Scope]]:
    """The scope model of every engine: what an entitlement is validated with."""
    return MappingProxyType({word: engine.scope_model for word, engine in engines().items()})


def places(layout: Layout) -> tuple[Places, ...]:
    """Where the engines that `layout` mounts keep their things. A word that is no engine's has no place."""
    return tuple(engines()[word].places(mount) for word, mount in sorted(layout.mounts.items()) if word in engines())


Show = Callable[[str, str], JsonObject | None]
"""What the mount of an engine, by its word, shows at a path to everybody; None where there is nothing."""


def own_probers(show: Show, clock: Clock) -> Mapping[str, Prober]:
    """The probers that engines bring in their own files, by the kind of target that they ask.

    Such a file has a `PROBER`, which is called with what its mount shows and a clock; others are asked by `probers/`.
    """
    found: dict[str, Prober] = {}
    for word in engines():
        module = importlib.import_module(f"{__name__}.{word}")
        make = cast("Callable[[Show, Clock], Prober] | None", getattr(module, "PROBER", None))
        if make is not None:
            found[word] = make(show, clock)
    return found


__all__ = ["Show", "engines", "own_probers", "places", "scope_models"]
