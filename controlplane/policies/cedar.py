"""The decision point: asks Cedar about one request, and takes everything but a clean yes for a no.

Cedar by itself fails open: it leaves out a `forbid` whose condition cannot be evaluated. So policies, entities and
requests are always validated against the schema, and an error of any policy is a no whatever the others say.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import monotonic as monotonic_clock
from typing import Final

from cedarpy import (
    AuthzResult,
    Decision,
    Entities,
    is_authorized,  # pyright: ignore[reportUnknownVariableType] # its stub says only dict
)

from controlplane.model.decision import Decides, Reason, Ruling
from controlplane.model.entitlement import Entitlement
from controlplane.model.identity import VerifiedClaims
from controlplane.model.request import GrantRequest
from controlplane.model.situation import Situation
from controlplane.policies import facts
from controlplane.policies.load import Applied, Policies, load, missing, stamp
from controlplane.policies.schema import schema
from controlplane.ports import Rule
from controlplane.sync.files import Fresh
from controlplane.sync.problem import Severity

_REQUEST: Final = {"type": "Action", "id": "request"}
_RENEW: Final = {"type": "Action", "id": "renew"}
_POLICY: Final = re.compile(r"`(policy[0-9]+)`")
_KEPT: Final = 10_000
"""Entitlements, and callers of them, that stay prepared: parsing them anew is a fifth of a ruling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    entitlement: Entitlement
    entities: Entities


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    before: Entities
    entities: Entities


class CedarPolicy:
    """Fits `ports.Policy`, with the policies of a directory as they stand now. Safe for threads."""

    def __init__(self, directory: Path, *, monotonic: Callable[[], float] = monotonic_clock) -> None:
        self._fresh = Fresh(
            lambda: stamp(directory),
            lambda: load(directory),
            lambda error: missing(directory, error),
            monotonic=monotonic,
        )
        self._prepared: dict[str, _Prepared] = {}
        self._callers: dict[tuple[str, str], _Known] = {}

    @property
    def policies(self) -> Policies:
        """The policies as they stand, with what is wrong with them."""
        return self._fresh.now()

    @property
    def broken(self) -> str | None:
        """What keeps every entitlement from being granted, None where nothing does."""
        found = self.policies
        if found.common is not None:
            return None
        first = next(problem for problem in found.problems if problem.severity is Severity.ERROR)
        return f"the policies have errors, so nothing is granted: {first}"

    def now(self) -> Rule:
        """The policies as they stand: whatever happens to their files, this rules as they were read."""
        return partial(self._rule, self.policies)

    def _rule(
        self,
        policies: Policies,
        entitlement: Entitlement,
        who: VerifiedClaims,
        asked: GrantRequest,
        situation: Situation,
    ) -> Ruling:
        """What the policies of `entitlement` say of the request. Never raises: what goes wrong is a no."""
        applied = policies.of(entitlement.name)
        if applied is None:
            return _no("policy-broken", "its policies have errors, so nothing is granted: `shorthold sync lint`")
        try:
            ruling = _ruling(self._ask(applied, entitlement, who, asked, situation), applied)
        except Exception:  # noqa: BLE001 # whatever happens in there, it is no yes
            ruling = _no("policy-error", "the policies cannot be held against this request, which counts as a no")
        return replace(ruling, reasons=tuple(replace(why, revision=applied.revision) for why in ruling.reasons))

    def _ask(
        self,
        applied: Applied,
        entitlement: Entitlement,
        who: VerifiedClaims,
        asked: GrantRequest,
        situation: Situation,
    ) -> AuthzResult:
        known = self._entities(entitlement)
        request = {
            "principal": {"type": "Workload", "id": facts.principal_id(who)},
            "action": _RENEW if situation.renewing else _REQUEST,
            "resource": {"type": "Entitlement", "id": entitlement.name},
            "context": facts.context(entitlement, asked, situation),
        }
        entities = self._with_caller(entitlement.name, known, facts.principal(who, applied.tags))
        return is_authorized(request, applied.set, entities, schema())

    def _with_caller(self, name: str, entities: Entities, seen: str) -> Entities:
        """The entitlement and its caller, made once as long as all that policies see of both is the same."""
        found = self._callers.get((name, seen))
        if found is None or found.before is not entities:
            both = entities.with_added_json_str(seen, schema())  # pyright: ignore[reportUnknownMemberType] # its stub says only dict
            found = _Known(before=entities, entities=both)
            if len(self._callers) >= _KEPT:
                self._callers.clear()
            self._callers[name, seen] = found
        return found.entities

    def _entities(self, entitlement: Entitlement) -> Entities:
        """The entitlement for Cedar, made once as long as it is the same."""
        found = self._prepared.get(entitlement.name)
        if found is None or found.entitlement is not entitlement:
            made = facts.resource(entitlement)
            entities = Entities.from_json_str(made, schema())  # pyright: ignore[reportUnknownMemberType] # same
            found = _Prepared(entitlement=entitlement, entities=entities)
            if len(self._prepared) >= _KEPT:
                self._prepared.clear()
            self._prepared[entitlement.name] = found
        return found.entities


def _ruling(answer: AuthzResult, applied: Applied) -> Ruling:
    said = answer.diagnostics
    deciding = sorted(applied.ids[name] for name in said.reasons)
    failed = [
        Reason(
            decision=Decides.POLICY,
            code="policy-error",
            detail=f"{_failing(error, applied)} cannot be held against this request, which counts as a no",
        )
        for error in said.errors
    ]
    match answer.decision:
        case Decision.Allow if not failed and deciding:
            return Ruling(permitted=True, reasons=_reasons("policy-permits", deciding, applied), policies=(*deciding,))
        case Decision.Deny if deciding:
            forbidding = _reasons("policy-forbids", deciding, applied)
            return Ruling(permitted=False, reasons=(*forbidding, *failed), policies=(*deciding,))
        case Decision.Deny if not failed:
            return _no("no-policy-permits", "no policy permits it, and what nothing permits is denied")
        case _:
            nothing = _no("policy-error", "the policies cannot be held against this request, which counts as a no")
            return Ruling(permitted=False, reasons=(*failed,)) if failed else nothing


def _reasons(code: str, deciding: list[str], applied: Applied) -> tuple[Reason, ...]:
    return tuple(Reason(decision=Decides.POLICY, code=code, detail=f"{id}: {applied.reasons[id]}") for id in deciding)


def _failing(error: str, applied: Applied) -> str:
    """Which policy failed. Cedar's own words stay out: they quote what the token says."""
    found = _POLICY.search(error)
    id = None if found is None else applied.ids.get(found[1])
    return "a policy" if id is None else f"the policy {id}"


def _no(code: str, detail: str) -> Ruling:
    return Ruling(permitted=False, reasons=(Reason(decision=Decides.POLICY, code=code, detail=detail),))
