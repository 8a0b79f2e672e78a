"""Cases: what the policies should say of a request, as given and expected in YAML beside them, and what they say."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, PlainValidator, ValidationError

from controlplane.model.canonical import canonical
from controlplane.model.decision import Ruling
from controlplane.model.duration import Duration
from controlplane.model.entitlement import Entitlement, Intent, Name, Scope, Text
from controlplane.model.grant import TaskId
from controlplane.model.identity import IssuerName, VerifiedClaims
from controlplane.model.network import Address, parse_address
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation
from controlplane.policies.load import CASES
from controlplane.ports import Policy, Rule
from controlplane.sync.document import Document, RefusedError, parse
from controlplane.sync.files import read
from controlplane.sync.load import Source, problems
from controlplane.sync.problem import Problem

_MONDAY: Final = datetime(2026, 1, 5, 12, tzinfo=UTC)
_UNDECIDED: Final = frozenset({"policy-broken", "policy-error"})


def _address(text: object) -> Address:
    found = parse_address(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("write an address: 10.1.2.3 or 2001:db8::1")
    return found


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Given(_Part):
    """A request. What is left out is as in a plain one: the first intent, the default TTL, a Monday at noon."""

    entitlement: Name
    with_: dict[str, JsonValue] = Field(default={}, alias="with")
    """Keys of the entitlement that are to be otherwise than in its file."""
    issuer: Name
    subject: Text
    person: Text | None = None
    claims: dict[Text, JsonValue] = {}
    intent: Intent | None = None
    task: Text = "T-1"
    reason: str = ""
    ttl: Duration | None = None
    action: Literal["request", "renew"] = "request"
    at: AwareDatetime = _MONDAY
    environment: Name | None = None
    address: Annotated[Address, PlainValidator(_address)] | None = None


class Decided(StrEnum):
    """What policies can say."""

    ALLOW = "allow"
    DENY = "deny"


class Expected(_Part):
    """What is to be decided, and by which policy; without one, whichever may decide."""

    decision: Decided
    policy: Text | None = None


class Case(_Part):
    """One of them; its name is the promise it checks."""

    name: Text
    given: Given
    expect: Expected


class _Cases(_Part):
    cases: tuple[Case, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A case and what was decided; `wrong` says what is not as expected, None where everything is."""

    file: str
    line: int
    name: str
    ruling: Ruling
    wrong: str | None


def try_cases(
    directory: Path, policy: Policy, entitlements: Mapping[str, Source], models: Mapping[str, type[Scope]]
) -> tuple[Sequence[Tried], Sequence[Problem]]:
    """Try every case of `directory`/tests, and what is wrong with their files.

    Raises: OSError: the cases cannot be read.
    """
    rule = policy.now()
    tried: list[Tried] = []
    wrong: list[Problem] = []
    for file in _files(directory):
        document = None
        try:
            document = parse(read(directory, file))
            cases = _Cases.model_validate_json(canonical(document.value), strict=True).cases
            tried += _tried(file, document, cases, rule=rule, entitlements=entitlements, models=models)
        except RefusedError as error:
            wrong.append(Problem(f"policies/{file}", error.place.line, error.place.column, error.rule, error.message))
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            wrong += [] if document is None else problems(f"policies/{file}", document, found)
    return tried, wrong


def _files(directory: Path) -> list[str]:
    folder = directory / CASES
    return [f"{CASES}/{path.name}" for path in sorted(folder.iterdir()) if path.suffix == ".yaml"]


def _tried(
    file: str,
    document: Document,
    cases: Sequence[Case],
    *,
    rule: Rule,
    entitlements: Mapping[str, Source],
    models: Mapping[str, type[Scope]],
) -> Iterator[Tried]:
    for number, case in enumerate(cases):
        place = document.place(("cases", number))
        source = entitlements.get(case.given.entitlement)
        if source is None:
            where = document.place(("cases", number, "given", "entitlement"))
            raise RefusedError(where, "unknown-entitlement", f"no sound entitlement is called {case.given.entitlement}")
        try:
            entitlement = _changed(source, case.given, models)
        except (ValidationError, TypeError):
            where = document.place(("cases", number, "given", "with"))
            message = f"{case.given.entitlement} would be no sound entitlement with this"
            raise RefusedError(where, "invalid-value", message) from None
        ruling = rule(entitlement, *_request(case.given, entitlement))
        wrong = _wrong(case.expect, ruling)
        yield Tried(file=f"policies/{file}", line=place.line, name=case.name, ruling=ruling, wrong=wrong)


def _changed(source: Source, given: Given, models: Mapping[str, type[Scope]]) -> Entitlement:
    if not given.with_:
        return source.entitlement
    value = source.document.value
    changed = {**(value if isinstance(value, dict) else {}), **given.with_}
    return Entitlement.model_validate_json(canonical(changed), strict=True, context={"engines": dict(models)})


def _request(given: Given, entitlement: Entitlement) -> tuple[VerifiedClaims, GrantRequest, Situation]:
    who = VerifiedClaims(
        issuer=IssuerName(given.issuer),
        subject=given.subject,
        person=given.person,
        claims=given.claims,
        issued_at=given.at,
        expires_at=given.at,
    )
    asked = GrantRequest(
        entitlement=entitlement.name,
        task=TaskId(given.task),
        intent=given.intent or entitlement.intents[0],
        reason=given.reason,
        ttl=given.ttl,
    )
    situation = Situation(
        at=given.at, address=given.address, environment=given.environment, renewing=given.action == "renew"
    )
    return who, asked, situation


def _wrong(expected: Expected, ruling: Ruling) -> str | None:
    undecided = [why.detail for why in ruling.reasons if why.code in _UNDECIDED]
    if undecided:
        return undecided[0]  # a no that comes from an error proves nothing
    decided = Decided.ALLOW if ruling.permitted else Decided.DENY
    if decided is not expected.decision:
        return f"{decided} instead of {expected.decision}"
    if expected.policy is not None and expected.policy not in ruling.policies:
        return f"decided by {', '.join(ruling.policies) or 'no policy'} instead of {expected.policy}"
    return None
