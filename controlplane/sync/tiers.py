"""Risk tiers (`tiers.toml` beside the entitlements): how long a grant lives, who must agree, how it ends."""

import tomllib
from datetime import timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controlplane.model.duration import Duration
from controlplane.model.entitlement import MAX_TTL, Revocability, Risk
from controlplane.model.errors import ConfigurationError

FILE = "tiers.toml"


class Tier(BaseModel):
    """The ceilings of one tier.

    `break_glass` is the longest `ttl.max` of a break-glass entitlement, besides `max_ttl`;
    `inline` is whether a credential may stand in the answer itself; `heartbeat`, where it is set, is required and at
    most this long; `revocability` is the weakest class that an engine may have; `own_clock` is whether every target
    must end a credential by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_ttl: Duration = Field(le=MAX_TTL)
    quorum: int = Field(ge=0, le=10)
    break_glass: Duration = Field(default=timedelta(minutes=10), le=MAX_TTL)
    inline: bool = True
    heartbeat: Duration | None = None
    revocability: Revocability = Field(default=Revocability.LASTING, strict=False)
    own_clock: bool = False


class Tiers(BaseModel):
    """All of them. Without a file these hold; the shipped file says the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: Tier = Tier(max_ttl=timedelta(hours=1), quorum=0, break_glass=timedelta(minutes=30))
    medium: Tier = Tier(
        max_ttl=timedelta(minutes=30),
        quorum=0,
        break_glass=timedelta(minutes=15),
        revocability=Revocability.RECALLABLE,
    )
    high: Tier = Tier(
        max_ttl=timedelta(minutes=15), quorum=1, inline=False, revocability=Revocability.PROVABLE, own_clock=True
    )

    def of(self, risk: Risk) -> Tier:
        """The tier of that risk."""
        match risk:
            case Risk.LOW:
                return self.low
            case Risk.MEDIUM:
                return self.medium
            case Risk.HIGH:
                return self.high


def load(directory: Path) -> Tiers:
    """The tiers of `directory`, the built-in ones where it has no file.

    Raises: ConfigurationError: the file cannot be read or understood.
    """
    path = directory / FILE
    try:
        return Tiers.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Tiers()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ConfigurationError(f"{path}: {wrong}") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
