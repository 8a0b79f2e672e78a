"""Who may vouch for a workload. A file in this folder with a `KIND` is one kind of issuer; nothing else lists them."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # settings name the kinds before anybody needs cryptography
    from controlplane.issuers.trust.kind import Kind


@cache
def kinds() -> "Mapping[str, Kind[Any]]":
    """Every kind by its word, which is its file's name and what settings say. Packages in this folder are no kinds.

    Raises: LookupError: a file without `KIND`, or whose word is not its name: a fault in the code.
    """
    found: dict[str, Kind[Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            continue
        kind: Kind[Any] | None = getattr(importlib.import_module(f"{__name__}.{module.name}"), "KIND", None)
        if kind is None or kind.word != module.name:
            raise LookupError(f"issuers/{module.name}.py must have a KIND whose word is {module.name!r}")
        found[kind.word] = kind
    return MappingProxyType(found)


__all__ = ["kinds"]
