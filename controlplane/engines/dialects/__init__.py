"""Dialects: one kind of database each. A file in this folder with a `DIALECT` is one; nothing else lists them.

A scope says which (`dialect: mariadb`), so that a reviewer sees whose words the privileges are and `sync` compiles
without asking anybody. Where it is wrong, the database refuses the statements and nothing is granted.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from re import Pattern
from types import MappingProxyType
from typing import Annotated, Any, Final, Protocol, Self, cast

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ModelWrapValidatorHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import override

from controlplane.engines.dialects.terms.group import Group
from controlplane.model.entitlement import Scope

USUAL: Final = "postgresql"
"""What a scope or a target is that does not say."""


class DatabaseScope(Scope):
    """What one login may do in the database behind one connection of Vault's database mount."""

    dialect: str = USUAL
    connection: Annotated[
        str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="A connection at Vault's database mount.")
    ]

    def given(self) -> frozenset[str] | None:
        """All that its group may have at the target, as the prober of its dialect spells it; None: nobody can tell."""
        return None

    @model_validator(mode="wrap")
    @classmethod
    def _by_dialect(cls, raw: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Let the named dialect read its own fields."""
        if cls is not DatabaseScope or not isinstance(raw, dict):
            return handler(raw)
        fields = cast("dict[str, Any]", raw)
        dialect = fields.get("dialect", USUAL)
        if not isinstance(dialect, str) or dialect not in dialects():
            raise ValueError(f"dialect must be one of: {', '.join(sorted(dialects()))}")
        return cast("Self", dialects()[dialect].scope_model.model_validate(fields))

    @classmethod
    @override
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchemaValue:
        """Any one dialect's."""
        if cls is not DatabaseScope:
            return handler(core_schema)
        return {"anyOf": [_shape(dialect) for _, dialect in sorted(dialects().items())]}


class TargetOptions(BaseModel):
    """Where the prober of a connection asks; each dialect extends it with its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = USUAL
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """What Vault sends to the database, as the plugin of this dialect reads it."""

    creation: Sequence[str]
    renewal: Sequence[str] = ()
    revocation: Sequence[str] = ()


class Dialect(Protocol):
    """One kind of database as data and pure functions. Adding a file to `engines/dialects/` adds one."""

    @property
    def word(self) -> str:
        """What the YAML says: `dialect: <word>`; the file's name, and the name of its prober in `probers/`."""
        ...

    @property
    def plugins(self) -> frozenset[str]:
        """The `plugin_name`s of Vault's connections that speak it."""
        ...

    @property
    def scope_model(self) -> type[DatabaseScope]:
        """The model of its scopes."""
        ...

    @property
    def options(self) -> type[TargetOptions]:
        """What settings say of one of its targets."""
        ...

    @property
    def example(self) -> str:
        """One scope in YAML: for the documentation, and compiled in a test."""
        ...

    @property
    def usernames(self) -> Pattern[str]:
        """The names that a login may have, whole: nothing that means something in a statement."""
        ...

    def statements(self, scope: DatabaseScope, group: Group, *, maximum: timedelta) -> Statements:
        """How a login of `group` is made and ended. Vault lets none live longer than `maximum`."""
        ...

    def prober(self) -> Statements:
        """How the prober's own login is made and ended: it may see who is there, and nothing else."""
        ...

    def reach(self, scope: DatabaseScope) -> Sequence[str]:
        """A plain sentence for each privilege."""
        ...


@cache
def dialects() -> Mapping[str, Dialect]:
    """Every dialect by its word, which is its file's name. Packages in this folder are no dialects.

    Raises: LookupError: a file without `DIALECT`, or whose word is not its name: a fault in the code.
    """
    found: dict[str, Dialect] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            continue
        dialect: Dialect | None = getattr(importlib.import_module(f"{__name__}.{module.name}"), "DIALECT", None)
        if dialect is None or dialect.word != module.name:
            raise LookupError(f"engines/dialects/{module.name}.py must have a DIALECT whose word is {module.name!r}")
        found[dialect.word] = dialect
    return MappingProxyType(found)


def _shape(dialect: Dialect) -> dict[str, Any]:
    """Its scopes for an editor: the word is theirs alone, and may be left out where it is the usual one."""
    shape = dialect.scope_model.model_json_schema()
    shape["properties"]["dialect"] = {"const": dialect.word, "description": "Whose words the privileges are."}
    if dialect.word != USUAL:
        shape["required"] = [*shape["required"], "dialect"]
    return shape


def by_kind(raw: object) -> object:
    """Let the dialect that a target names read its own options; what is no table is left to the caller to refuse.

    Raises: ValueError: there is no such kind, or, as pydantic's ValidationError, what is wrong by name.
    """
    if not isinstance(raw, dict):
        return raw
    fields = cast("dict[str, Any]", raw)
    kind = fields.get("kind", USUAL)
    if not isinstance(kind, str) or kind not in dialects():
        raise ValueError(f"kind must be one of: {', '.join(sorted(dialects()))}")
    return dialects()[kind].options.model_validate(fields)


__all__ = ["USUAL", "DatabaseScope", "Dialect", "Statements", "TargetOptions", "by_kind", "dialects"]
