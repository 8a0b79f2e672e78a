"""Whom audit events are told to. A file in this folder with a `KIND` is one kind of sink; nothing else lists them."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from controlplane.model.entitlement import Name
from controlplane.model.event import Kind
from controlplane.ports import Clock, Sink


class SinkOptions(BaseModel):
    """What an operator says of a sink, whatever its kind; each kind extends it with its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    kind: str
    events: tuple[Kind, ...] = ()
    """Of which kinds it is told; none named is all of them."""
    since: Literal["now", "beginning"] = "now"
    """Where a sink begins that was never told anything. Afterwards its cursor in the store says so."""


Options = TypeVar("Options", bound=SinkOptions)
PrivateFile = Callable[[Path, str], bytes | None]
"""Reads a file that only its owner may read; the text is what errors call it. None: there is no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkKind(Generic[Options]):
    """One kind of sink: what settings call it, what they say of it, and how one is made.

    `make` raises ConfigurationError: something that the options name is missing or wrong.
    """

    word: str
    options: type[Options]
    make: Callable[[Options, Clock, PrivateFile], Sink]


@cache
def kinds() -> Mapping[str, SinkKind[Any]]:
    """Every kind by its word, which is its file's name and what settings say. Packages in this folder are no kinds.

    Raises: LookupError: a file without `KIND`, or whose word is not its name: a fault in the code.
    """
    found: dict[str, SinkKind[Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            continue
        kind: SinkKind[Any] | None = getattr(importlib.import_module(f"{__name__}.{module.name}"), "KIND", None)
        if kind is None or kind.word != module.name:
            raise LookupError(f"sinks/{module.name}.py must have a KIND whose word is {module.name!r}")
        found[kind.word] = kind
    return MappingProxyType(found)


def by_kind(raw: object) -> object:
    """Let the kind that `raw` names read its own options; what is no table is left to the caller to refuse.

    Raises: ValueError: there is no such kind, or, as pydantic's ValidationError, what is wrong by name.
    """
    if not isinstance(raw, dict):
        return raw
    fields = cast("dict[str, Any]", raw)
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in kinds():
        raise ValueError(f"kind must be one of: {', '.join(sorted(kinds()))}")
    options: type[SinkOptions] = kinds()[kind].options
    return options.model_validate(fields)
