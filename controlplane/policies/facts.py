"""What a policy sees of a request, as Cedar's JSON; `shorthold.cedarschema` says what each part means. Pure."""

import json
from datetime import UTC, datetime, timedelta

from controlplane.grants.decide import granted_ttl
from controlplane.model.canonical import JsonValue, canonical
from controlplane.model.entitlement import Entitlement
from controlplane.model.identity import VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation
from controlplane.model.window import DAYS


def principal_id(who: VerifiedClaims) -> str:
    """The workload's id in policies. No issuer's name has a space, so it cannot be read in two ways."""
    return f"{who.issuer} {who.subject}"


def principal(who: VerifiedClaims, tags: frozenset[str] | None = None) -> str:
    """The workload as an entity, with those of its claims that `tags` names: others would only be parsed in vain."""
    attributes: dict[str, JsonValue] = {"issuer": who.issuer, "subject": who.subject}
    if who.person is not None:
        attributes["person"] = who.person
    return _entity("Workload", principal_id(who), attributes, _claims(who, tags))


def resource(entitlement: Entitlement) -> str:
    """The entitlement as an entity."""
    attributes: dict[str, JsonValue] = {
        "name": entitlement.name,
        "owner": entitlement.owner,
        "risk": _word("Risk", entitlement.risk),
        "delivery": _word("Delivery", entitlement.delivery),
        "intents": [*entitlement.intents],
        "engines": [*sorted({scope.engine for scope in entitlement.scopes})],
        "quorum": 0 if entitlement.approval is None else entitlement.approval.quorum,
        "max_ttl": _duration(entitlement.ttl.max),
        "break_glass": entitlement.break_glass,
    }
    if entitlement.sensitivity is not None:
        attributes["sensitivity"] = entitlement.sensitivity
    return _entity("Entitlement", entitlement.name, attributes, dict(entitlement.labels))


def context(entitlement: Entitlement, asked: GrantRequest, situation: Situation) -> str:
    """What is asked and when, from where and in which environment."""
    at = situation.at.astimezone(UTC)
    facts: dict[str, JsonValue] = {
        "intent": asked.intent,
        "task": asked.task,
        "reason": asked.reason,
        "ttl": _duration(granted_ttl(entitlement, asked)),
        "at": _instant(at),
        "hour": at.hour,
        "weekday": _word("Weekday", DAYS[at.weekday()]),
    }
    if situation.environment is not None:
        facts["environment"] = situation.environment
    if situation.address is not None:
        facts["address"] = str(situation.address)
    return json.dumps(facts)


def _entity(type: str, id: str, attributes: dict[str, JsonValue], tags: JsonValue) -> str:
    return json.dumps([{"uid": {"type": type, "id": id}, "attrs": attributes, "parents": [], "tags": tags}])


def _claims(who: VerifiedClaims, tags: frozenset[str] | None) -> dict[str, JsonValue]:
    """Each claim as the texts it holds; one within another by its path, unless a claim's own name is that path."""
    if tags is not None and not tags:
        return {}
    found: dict[str, JsonValue] = {}
    _flatten("", dict(who.claims), found)
    return found if tags is None else {name: found[name] for name in tags if name in found}


def _flatten(path: str, claims: dict[str, JsonValue], found: dict[str, JsonValue]) -> None:
    for name, value in claims.items():
        if isinstance(value, dict):
            _flatten(f"{path}{name}/", value, found)
    for name, value in claims.items():
        if isinstance(value, list):
            found[path + name] = [_text(item) for item in value]
        elif value is not None and not isinstance(value, dict):
            found[path + name] = [_text(value)]


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else canonical(value).decode()


def _word(type: str, id: str) -> JsonValue:
    return {"type": type, "id": id}


def _duration(span: timedelta) -> str:
    return f"{span // timedelta(milliseconds=1)}ms"


def _instant(at: datetime) -> str:
    return at.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
