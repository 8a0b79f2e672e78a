"""The situation of a request: all that a decision looks at besides who asks and what for."""

from dataclasses import dataclass
from datetime import datetime

from controlplane.model.freeze import Freeze
from controlplane.model.grant import GrantId
from controlplane.model.network import Address
from controlplane.model.task import Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a budget has been spent on, of one entitlement, counted by the store up to a limit that the asker names.

    `active_of_subject` and `active` are grants that have not ended: what waits for approval keeps its place.
    `requested` are grants that the subject asked for in the last while, `oldest` the first instant of those.
    """

    active_of_subject: int = 0
    active: int = 0
    requested: int = 0
    oldest: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """When, from where, in which environment, and what was used up before.

    `address` is None where nobody vouches for one; `environment` is None where the settings name none; `usage` is
    None where nothing was counted; `open_reviews` are the caller's grants whose break-glass nobody has reviewed yet,
    None where nobody looked. A condition on what is None does not hold. `freezes` are all that are active. `waiting`
    are the workload's grants, of any entitlement, that wait for people; counted only where people must agree. `line`
    is the place of the task that is asked for, None where nobody looked.
    `renewing`: it is asked whether a grant may live longer, and not whether it is made.
    """

    at: datetime
    address: Address | None = None
    environment: str | None = None
    usage: Usage | None = None
    waiting: int = 0
    freezes: tuple[Freeze, ...] = ()
    open_reviews: tuple[GrantId, ...] | None = None
    line: Line | None = None
    renewing: bool = False
