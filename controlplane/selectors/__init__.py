"""The keys of a selection. A file in this folder with a `SELECTOR` is one; nothing else lists them."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache, lru_cache
from types import MappingProxyType

from controlplane.model.selection import Selection, Selector, parse_selection


@cache
def selectors() -> Mapping[str, Selector]:
    """Every selector by its word, which is its file's name.

    Raises: LookupError: a file without `SELECTOR`, or whose word is not its name: a fault in the code.
    """
    found: dict[str, Selector] = {}
    for module in pkgutil.iter_modules(__path__):
        selector: Selector | None = getattr(importlib.import_module(f"{__name__}.{module.name}"), "SELECTOR", None)
        if selector is None or selector.word != module.name:
            raise LookupError(f"selectors/{module.name}.py must have a SELECTOR whose word is {module.name!r}")
        found[selector.word] = selector
    return MappingProxyType(found)


@lru_cache(maxsize=256)
def selection(text: str) -> Selection:
    """The selection that `text` writes. Raises: InvalidSelectionError: it writes none."""
    return parse_selection(text, selectors())


__all__ = ["selection", "selectors"]
