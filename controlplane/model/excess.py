"""More than a task needs: what no language of privileges can say, refused under a stable name."""

from typing import Any, Literal

from pydantic_core import PydanticCustomError

Excess = Literal["all", "ddl", "grant-option", "public", "raw", "rights", "role", "superuser", "system", "wildcard"]


def excess(kind: Excess, message: str) -> ValueError:
    """The error for a text that asks for too much. `sync lint` names it by the rule `over-scope.<kind>`."""
    named: Any = f"over-scope.{kind}"  # pydantic wants the name written out where it is used
    return PydanticCustomError(named, "{said}", {"said": message})
