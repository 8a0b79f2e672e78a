"""The entitlement: a reviewed document saying what may be granted, to whom, when, how narrowly, how long.

The pydantic document *is* the noun: the YAML in `roles/` is the domain. What a scope can say depends on its
engine, so each engine brings its own `Scope`; the set of engines comes in through the validation context.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Final, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from controlplane.model.canonical import JsonValue
from controlplane.model.duration import Duration
from controlplane.model.identity import VerifiedClaims
from controlplane.model.matching import equals, globs
from controlplane.model.network import Network
from controlplane.model.parameter import Parameter, filled, parse, placeholders
from controlplane.model.rate import Rate
from controlplane.model.rotation import Rotation
from controlplane.model.window import Window

_Value = TypeVar("_Value")

MAX_TTL = timedelta(hours=8)

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{2,47}$")]
ScopeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,15}$")]
Intent = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{2,63}$")]
ONE_LINE: Final = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+$"
"""No control, format or surrogate characters: these strings reach logs, terminals and Vault's metadata."""
Text = Annotated[str, Field(min_length=1, max_length=300, pattern=ONE_LINE)]
ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Mount = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class Document(BaseModel):
    """What every part of an entitlement is: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Risk(StrEnum):
    """The risk tier; ceilings and defaults come from `roles/tiers.toml`."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Delivery(StrEnum):
    """How the credential reaches the agent: wrapped once (default), or inline in the answer."""

    WRAPPED = "wrapped"
    INLINE = "inline"


class Revocability(StrEnum):
    """What ending the credential can mean at its kind of target."""

    PROVABLE = "provable"  # the target can be asked, and says that it is gone
    RECALLABLE = "recallable"  # Vault takes it back, but the target cannot be asked
    EXPIRING = "expiring"  # it can only run out
    LASTING = "not-recallable"  # whoever has read it has it, until somebody changes it at the target


class Glob(Document):
    """A pattern, only ever by name: `{glob: "repo:acme/*"}`. `*` never crosses ':' or '/'."""

    glob: Text = Field(description="A pattern: * stands for anything but : and /.")

    @field_validator("glob")
    @classmethod
    def _anchored(cls, pattern: str) -> str:
        if not pattern.strip("*:/"):
            raise ValueError("a glob needs literal text: this one would match anybody")
        return pattern


Match = Text | Glob


def matches(expected: Match, value: str) -> bool:
    """Whether `value` is what `expected` names: exactly, or by its glob."""
    return globs(expected.glob, value) if isinstance(expected, Glob) else equals(expected, value)


class Eligibility(Document):
    """One kind of workload that may ever ask; all of its conditions must hold."""

    issuer: Name = Field(description="Who vouches for it: the name of an issuer in the settings.")
    subject: Match = Field(description="`sub` of its token: exactly, or as {glob: …}.")
    claims: dict[Text, Match] = Field(
        default={}, description="Further claims that have to be so; / descends, as in kubernetes.io/namespace."
    )

    def admits(self, who: VerifiedClaims) -> bool:
        """Whether `who` is such a workload. A claim that is missing or is not a string never matches."""
        return (
            who.issuer == self.issuer
            and matches(self.subject, who.subject)
            and all(
                isinstance(value := who.claim(path), str) and matches(expected, value)
                for path, expected in self.claims.items()
            )
        )


class MaxActive(Document):
    """How many grants of it there may be at once that have not ended; what waits for approval counts."""

    per_subject: int | None = Field(default=None, ge=1, le=100_000, description="Of one workload.")
    total: int | None = Field(default=None, ge=1, le=100_000, description="Of all together.")

    @model_validator(mode="after")
    def _says_something(self) -> "MaxActive":
        if self.per_subject is None and self.total is None:
            raise ValueError("max_active needs per_subject, total, or both")
        return self


class MaxRequests(Document):
    """How many requests are accepted in a while: `30/h`; one that was refused does not count."""

    per_subject: Rate = Field(description="Of one workload, as in 30/h.")


class Context(Document):
    """Whether it is right now: all that is named must hold."""

    windows: tuple[Window, ...] = Field(default=(), min_length=1, description="One of them must be open.")
    networks: tuple[Network, ...] = Field(default=(), min_length=1, description="The caller comes from one of them.")
    environments: tuple[Name, ...] = Field(default=(), min_length=1, description="The control plane is in one of them.")
    max_active: MaxActive | None = None
    max_requests: MaxRequests | None = None

    @property
    def budgeted(self) -> bool:
        """Whether something must be counted before it can be decided."""
        return self.max_active is not None or self.max_requests is not None


def distinct(values: tuple[_Value, ...], said: str) -> tuple[_Value, ...]:
    """The same values. Raises: ValueError: with what is `said` where one of them is there twice."""
    if len(set(values)) < len(values):
        raise ValueError(said)
    return values


class Placing(StrEnum):
    """Where in a field of a scope a parameter may stand."""

    PART = "anywhere in it"
    SEGMENT = "alone between two slashes, or at an end"
    ALONE = "in the only entry of the list"


class Scope(Document):
    """What exactly one credential can do. Each engine extends this with its own fields.

    `narrows` are the fields in which a parameter may stand. In a scope of an entitlement that has one, the field shows
    it as it was written, `{name}`; `bound` is that scope with a value in its place.
    """

    narrows: ClassVar[Mapping[str, Placing]] = {}

    name: ScopeName = Field(description="What the credential is called in the answer.")
    engine: str = Field(description="What kind of target it is.")

    @property
    def parameters(self) -> frozenset[str]:
        """The names of those that stand in it."""
        return frozenset(name for field in self.narrows for name in placeholders(getattr(self, field)))

    def bound(self, values: Mapping[str, str]) -> "Scope":
        """The scope with its parameters filled in, read again by its engine as if somebody had written it so.

        Raises: ValueError: that is no scope of its engine, or a parameter has no value.
        """
        if missing := self.parameters - values.keys():
            raise ValueError(f"{', '.join(sorted(missing))} has no value")
        written = cast("JsonValue", self.model_dump(mode="json"))
        return type(self).model_validate(filled(written, values)) if self.parameters else self

    @property
    def own_clock(self) -> bool:
        """Whether the target itself ends the credential in time, should Vault and we both be gone."""
        return False

    @property
    def verbatim(self) -> tuple[str, ...]:
        """Statements that reach the target as they were written: only an exception lets them."""
        return ()

    @property
    def revocability(self) -> Revocability | None:
        """What ending it can mean, where that is not what its engine says."""
        return None if self.rotation is None else Revocability.PROVABLE

    @property
    def rotation(self) -> Rotation | None:
        """What is replaced when the grant ends, where that is how the credential ends."""
        return None

    @property
    def secrets(self) -> frozenset[str]:
        """The static ones that it hands out, the same to every holder, each in a few words that name it."""
        return frozenset()

    def doubts(self) -> Iterable[str]:
        """What it opens beyond what its words seem to say, and what to write instead: for lint."""
        return ()


def _by_engine(raw: object, info: ValidationInfo) -> object:
    """Let the named engine read its own fields; where parameters stand in them, with values in their place."""
    if not isinstance(raw, dict):
        return raw
    context = cast("Mapping[str, Mapping[str, type[Scope]]]", info.context or {})
    engines = context.get("engines", {})
    fields = cast("dict[str, Any]", raw)
    engine = fields.get("engine")
    if not isinstance(engine, str) or engine not in engines:
        known = ", ".join(sorted(engines)) or "none"
        raise ValueError(f"engine must be one of: {known}")
    used = {field: names for field, value in fields.items() if (names := placeholders(value))}
    parameters = cast("Mapping[str, Parameter] | None", info.data.get("parameters"))
    if not used or parameters is None:  # None: what is wrong with the parameters is told instead
        return engines[engine].model_validate(fields, context=info.context)
    if unknown := {name for names in used.values() for name in names} - parameters.keys():
        raise ValueError(f"there is no parameter {min(unknown)}: declare it under parameters, or take the braces out")
    shortest, longest = (
        engines[engine].model_validate(filled(fields, values), context=info.context) for values in _samples(parameters)
    )
    for field in used:
        _see_placed(shortest, field, fields[field])
    return longest.model_copy(update={field: _frozen(fields[field]) for field in used})


def _samples(parameters: Mapping[str, Parameter]) -> Sequence[Mapping[str, str]]:
    """Values that their patterns let through, the shortest and the longest: what a scope has to make sense with."""
    parsed = {name: parse(parameter.pattern) for name, parameter in parameters.items()}
    shortest = {name: pattern.shortest for name, pattern in parsed.items()}
    return shortest, {name: pattern.longest for name, pattern in parsed.items()}


def _see_placed(scope: Scope, field: str, written: JsonValue) -> None:
    """Raises: ValueError: no parameter may stand in the field, or not there."""
    placing = scope.narrows.get(field)
    if placing is None:
        others = ", ".join(sorted(scope.narrows))
        instead = f"one may stand in {others} only" if others else "nothing of such a scope is made for a single grant"
        raise ValueError(f"no parameter can narrow {field} of a scope of {scope.engine}: {instead}")
    segments = written.split("/") if isinstance(written, str) else []
    if placing is Placing.SEGMENT and any(
        placeholders(segment) and not (segment.startswith("{") and segment.index("}") == len(segment) - 1)
        for segment in segments
    ):
        raise ValueError(f"in {field} a parameter stands {placing}: Vault's policies cannot say less than a segment")
    if placing is Placing.ALONE and isinstance(written, list) and len(written) > 1:
        raise ValueError(f"in {field} a parameter stands {placing}: put the others into a scope of their own")


def _frozen(written: JsonValue) -> object:
    return tuple(written) if isinstance(written, list) else written


class TtlRange(Document):
    """How long a grant lives: what it gets unasked, and the ceiling."""

    default: Duration = Field(description="What a request gets that does not say how long.")
    max: Duration = Field(le=MAX_TTL, description="The ceiling, renewals included; the tier has one, too.")

    @model_validator(mode="after")
    def _ordered(self) -> "TtlRange":
        if self.default > self.max:
            raise ValueError("ttl.default must not be longer than ttl.max")
        return self


def _named(text: str) -> str:
    kind, _, name = text.partition(":")
    issuer, _, subject = name.partition("/")
    if (kind == "group" and name) or (kind == "subject" and issuer and subject):
        return text
    raise ValueError("write group:<name>, or subject:<issuer>/<subject> for one person")


Approvers = Annotated[Text, AfterValidator(_named)]
"""People: `group:<name>`, as access rules bring groups, or one person: `subject:<issuer>/<subject>`."""


class Approval(Document):
    """Who must agree, how many of them, and within what time."""

    quorum: int = Field(ge=1, le=10, description="How many of them.")
    from_: tuple[Approvers, ...] = Field(
        alias="from", min_length=1, description="Who may: group:<name>, or subject:<issuer>/<subject> for one person."
    )
    not_from: tuple[Approvers, ...] = Field(default=(), description="Who may not, though named: the requester's team.")
    within: Duration = Field(default=timedelta(minutes=30), description="How long a request waits for them.")


class Exemption(Document):
    """A lint rule that this entitlement may break: owned, reasoned and dated."""

    rule: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]+$", description="The rule of lint that it breaks.")]
    owner: Text = Field(description="Who answers for that.")
    reason: Text = Field(description="Why it has to be.")
    expires: date = Field(description="The last day that it holds, within a year.")


class Entitlement(Document):
    """One file of `roles/`. It gives nothing by itself.

    Validate with `context={"engines": {name: scope model}}`; an engine that is not in there is refused.
    """

    entitlement: Name = Field(description="Its name, which is also its file's.")
    owner: Text = Field(description="Who answers for it: a person or a team that can be reached.")
    purpose: Text = Field(description="What it is for, in a sentence that approvers read.")
    intents: tuple[Intent, ...] = Field(min_length=1, description="What for: a request names one of these.")
    risk: Risk
    sensitivity: Name | None = Field(default=None, description="What kind of data it reaches; known to policies.")
    labels: dict[Name, Text] = Field(default={}, description="Words of yours; known to policies and selections.")
    eligibility: tuple[Eligibility, ...] = Field(min_length=1, description="Who may ever ask; any one entry suffices.")
    context: Context = Context()
    parameters: dict[ParameterName, Parameter] = Field(
        default={},
        max_length=8,
        description="What a request narrows it to; {name} stands for one in a scope.",
        json_schema_extra={"additionalProperties": False},
    )
    scopes: tuple[SerializeAsAny[Annotated[Scope, BeforeValidator(_by_engine)]], ...] = Field(
        min_length=1, description="What exactly: one credential for each."
    )
    ttl: TtlRange
    heartbeat: Duration | None = Field(default=None, description="A grant ends when no beat came for so long.")
    approval: Approval | None = None
    break_glass: bool = Field(default=False, description="Nobody has to agree first; somebody else must review it.")
    delivery: Delivery = Delivery.WRAPPED
    exceptions: tuple[Exemption, ...] = Field(default=(), description="Rules of lint that it may break, for a while.")

    @property
    def name(self) -> str:
        """The entitlement's name, which is also its file's."""
        return self.entitlement

    def admits(self, who: VerifiedClaims) -> bool:
        """Whether `who` may ever ask for it."""
        return any(entry.admits(who) for entry in self.eligibility)

    @model_validator(mode="after")
    def _parameters_used(self) -> "Entitlement":
        unused = self.parameters.keys() - frozenset[str]().union(*(scope.parameters for scope in self.scopes))
        if unused:
            raise ValueError(f"the parameter {min(unused)} narrows nothing: write {{{min(unused)}}} into a scope")
        return self

    @field_validator("scopes")
    @classmethod
    def _distinct(cls, scopes: tuple[Scope, ...]) -> tuple[Scope, ...]:
        if len({scope.name for scope in scopes}) < len(scopes):
            raise ValueError("every scope needs a name of its own")
        return scopes

    @model_validator(mode="after")
    def _rotated_for_one(self) -> "Entitlement":
        alone = self.context.max_active is not None and self.context.max_active.total == 1
        if not alone and any(scope.rotation for scope in self.scopes):
            raise ValueError(
                "what is rotated when a grant ends, ends for every other grant of it, too: "
                "set context.max_active.total to 1"
            )
        return self

    @model_validator(mode="after")
    def _glass_or_approval(self) -> "Entitlement":
        if self.break_glass and self.approval is not None:
            raise ValueError("break_glass skips approval: leave one of the two out")
        return self

    @field_validator("intents")
    @classmethod
    def _intents_distinct(cls, intents: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(intents, "an intent is named twice")
