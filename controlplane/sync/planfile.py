"""A plan in a file: what was looked at, to be applied as it was seen and not otherwise."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from controlplane.model.errors import ConfigurationError, StalePlanError
from controlplane.model.plan import Plan
from controlplane.sync.diff import digest


class _PlanFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    shorthold_plan: Literal[1] = 1
    plan: Plan


def write(path: Path, plan: Plan) -> None:
    """Write `plan`. It holds no secret.

    Raises: ConfigurationError: the file cannot be written.
    """
    try:
        path.write_text(_PlanFile(plan=plan).model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"the plan cannot be written: {error}") from None


def read(path: Path) -> Plan:
    """The plan in `path`.

    Raises: ConfigurationError: no plan is there; StalePlanError: its changes are not those of its digest.
    """
    try:
        plan = _PlanFile.model_validate_json(path.read_bytes()).plan
    except OSError as error:
        raise ConfigurationError(f"the plan cannot be read: {error}") from None
    except ValidationError:
        raise ConfigurationError(f"{path} holds no plan of this version") from None
    if digest(plan.changes) != plan.digest:
        raise StalePlanError(f"the changes in {path} are not those that its digest was made of")
    return plan
