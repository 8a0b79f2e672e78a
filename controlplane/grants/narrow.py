"""Narrow an entitlement to the values of one request: are they what it lets through, and what is it then? Pure.

Nothing is pasted: a value fills a field of a scope, and the scope is read again by its engine's own rules. What comes
of it has a role of its own in Vault, named after the grant (docs/adr/0027-a-role-for-one-grant.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from controlplane.model.decision import Decides, Reason
from controlplane.model.entitlement import Entitlement
from controlplane.model.grant import Grant, GrantId
from controlplane.model.plan import Compiled, VaultObject
from controlplane.model.request import GrantRequest
from controlplane.ports import Engine


def outside(entitlement: Entitlement, asked: GrantRequest) -> Iterator[Reason]:
    """Why the values are not what the entitlement lets through. A value that is refused is not repeated."""
    given, declared = asked.parameters, entitlement.parameters
    for name in sorted(given.keys() - declared.keys()):
        known = f"only: {', '.join(sorted(declared))}" if declared else "and no other one"
        yield _no("unknown-parameter", f"it has no parameter {name}, {known}")
    for name in sorted(declared.keys() - given.keys()):
        yield _no("parameter-missing", f"the parameter {name} needs a value that matches {declared[name].pattern}")
    wrong = [name for name in sorted(declared.keys() & given.keys()) if not declared[name].admits(given[name])]
    for name in wrong:
        yield _no("parameter-outside", f"the value of {name} does not match {declared[name].pattern}")
    if not wrong and given.keys() == declared.keys():
        yield from _senseless(entitlement, given)


def with_values(compiled: Compiled, grant: Grant, engines: Mapping[str, Engine]) -> Compiled:
    """What `grant` has of it: its scopes with values in them, and the roles, if any, that are made for it alone.

    Raises: ValueError: its values are none that the entitlement, as it stands now, lets through.
    """
    if not grant.parameters:
        return compiled
    entitlement = compiled.entitlement
    naming = replace(compiled.naming, grant=part_of(grant.id))
    scopes = tuple(scope.bound(grant.parameters) for scope in entitlement.scopes)
    lives = entitlement.ttl
    roles: list[VaultObject] = []
    for scope in scopes:
        if scope.name in naming.narrowed and (grant.scopes is None or scope.name in grant.scopes):
            roles += engines[scope.engine].roles(scope, naming, default=lives.default, maximum=lives.max)
    bound = entitlement.model_copy(update={"scopes": scopes})
    return Compiled(entitlement=bound, naming=naming, objects=tuple(roles))


def own_roles(compiled: Compiled, grant: Grant) -> Sequence[VaultObject]:
    """The roles to be made before the grant's task logs in: none where it has no parameters."""
    return compiled.objects if grant.parameters else ()


def part_of(id: GrantId) -> str:
    """What names carry of a grant's id: its random part."""
    return id.removeprefix("gr_")


def _senseless(entitlement: Entitlement, given: Mapping[str, str]) -> Iterator[Reason]:
    for scope in entitlement.scopes:
        try:
            scope.bound(given)
        except ValueError:
            names = ", ".join(sorted(scope.parameters))
            detail = f"with these values of {names}, {scope.name} is no scope of {scope.engine}"
            yield _no("parameter-senseless", detail)


def _no(code: str, detail: str) -> Reason:
    return Reason(decision=Decides.SCOPE, code=code, detail=detail)
