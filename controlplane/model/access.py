"""What people may do here: roles and groups, from what their issuer says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from controlplane.model.canonical import JsonValue
from controlplane.model.errors import NotAllowedError
from controlplane.model.identity import IssuerName
from controlplane.model.matching import equals


class Role(StrEnum):
    """What somebody may do besides asking for what he is eligible for. A workload needs none of these."""

    APPROVER = "approver"
    RESPONDER = "responder"
    PLATFORM = "platform"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the rules give to one caller. Without any rule it is empty: nobody has access by default."""

    roles: frozenset[Role] = frozenset()
    groups: frozenset[str] = frozenset()

    def must_be(self, *roles: Role) -> None:
        """Nothing, where one of `roles` is among these. Raises: NotAllowedError: none is."""
        if self.roles.isdisjoint(roles):
            raise NotAllowedError(f"this takes the role {' or '.join(roles)}")


NOBODY: Final = Standing()
"""Whom no rule fits: every workload, as a rule."""


class Known(Protocol):
    """Of whom an issuer said something: a caller now, or an approver as he was when he agreed."""

    @property
    def issuer(self) -> IssuerName:
        """The configured issuer's name."""
        ...

    @property
    def subject(self) -> str:
        """`sub`."""
        ...

    def claim(self, path: str) -> JsonValue:
        """The claim at `path`, None where there is none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRule:
    """Whoever has this subject and these claims, from this issuer, has these roles.

    `subject` None means anybody whom `claims` fit. A claim that is a list fits when the text expected is one of its
    members. `groups` is the path of the claim that lists the caller's groups, None where the rule brings none.
    """

    issuer: IssuerName
    roles: frozenset[Role]
    subject: str | None = None
    claims: Mapping[str, str] = field(default_factory=dict[str, str])
    groups: str | None = None

    def fits(self, who: Known) -> bool:
        """Whether all of its conditions hold; one on a claim that is not there does not."""
        return (
            who.issuer == self.issuer
            and (self.subject is None or equals(self.subject, who.subject))
            and all(any(equals(expected, said) for said in _texts(who, path)) for path, expected in self.claims.items())
        )


def standing(rules: Sequence[AccessRule], who: Known) -> Standing:
    """All that the rules which fit `who` give together."""
    fitting = [rule for rule in rules if rule.fits(who)]
    return Standing(
        roles=frozenset(role for rule in fitting for role in rule.roles),
        groups=frozenset(group for rule in fitting if rule.groups is not None for group in _texts(who, rule.groups)),
    )


def looked_at(rules: Sequence[AccessRule], who: Known) -> dict[str, JsonValue]:
    """Every claim by its path that a rule for this issuer looks at: enough to hold the rules against `who` again."""
    paths = {
        path
        for rule in rules
        if rule.issuer == who.issuer
        for path in (*rule.claims, *(() if rule.groups is None else (rule.groups,)))
    }
    return {path: said for path in sorted(paths) if (said := who.claim(path)) is not None}


def _texts(who: Known, path: str) -> tuple[str, ...]:
    """The claim's text, or the texts in its list."""
    value = who.claim(path)
    said = value if isinstance(value, list) else [value]
    return tuple(item for item in said if isinstance(item, str))
