"""The policies in a Cedar text, one by one, each sound or with what is wrong with it and where. Pure.

Cedar itself says what is wrong but not where, so the text is taken apart first: outside strings and comments a
semicolon ends a policy and nothing else. If that should ever be otherwise, a part would be no policy, and refused.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Final, cast

from cedarpy import (
    PolicySet,
    pst,
    validate_policies,  # pyright: ignore[reportUnknownVariableType] # its stub says only dict
)

from controlplane.policies.schema import schema
from controlplane.sync.document import Place

BASE: Final = "reviewed-entitlement"
"""The `@id` of the one policy that may permit everything: it is explained where it stands."""

_ID: Final = re.compile(r"[a-z][a-z0-9-]{2,63}", re.ASCII)
_REASON: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]{1,300}")
_LONGEST: Final = 300
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|;|[^\s]', re.DOTALL)
_KEPT: Final = 4096  # texts; files that did not change are not read again
_DEEPEST: Final = 50  # brackets within brackets
_MOST: Final = 1500  # characters of one policy, not counting strings, comments and blanks


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One sound policy, and where it begins. `tags` are the names of those it reads, None where it computes one."""

    id: str
    reason: str
    text: str
    place: Place
    tags: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong with one policy; `rule` is stable."""

    place: Place
    rule: str
    message: str


@lru_cache(maxsize=_KEPT)
def statements(text: str) -> tuple[Statement | Finding, ...]:
    """Every policy of `text` or what is wrong with it, in order."""
    return tuple(found for place, part in _parts(text) for found in _statement(place, part))


def _parts(text: str) -> Iterator[tuple[Place, str]]:
    """Each policy with the place of its first word; what follows the last semicolon is one, too, if it has a word."""
    begins: int | None = None
    for token in _TOKEN.finditer(text):
        if token[0].startswith("//"):
            continue
        begins = token.start() if begins is None else begins
        if token[0] == ";":
            yield _place(text, begins), text[begins : token.end()]
            begins = None
    if begins is not None:
        yield _place(text, begins), text[begins:]


def _place(text: str, at: int) -> Place:
    return Place(text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1)


def _too_much(text: str) -> bool:
    """Whether Cedar should not even try: some 1 000 levels deep its parser runs out of stack and kills the process."""
    depth = count = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "([{":
            depth += 1
        elif token[0] in ")]}":
            depth -= 1
        count += len(token[0]) == 1
        if depth > _DEEPEST or count > _MOST:
            return True
    return False


def _statement(place: Place, text: str) -> Iterator[Statement | Finding]:
    if _too_much(text):
        yield Finding(place=place, rule="too-deep", message="this policy is too long or too deep: write several")
        return
    try:
        parsed = PolicySet.from_str(text).to_pst()
    except ValueError as error:
        yield Finding(
            place=place, rule="not-cedar", message=f"the policy that begins here is not Cedar: {_said(error)}"
        )
        return
    if parsed.templates or len(parsed.static_policies) != 1:
        yield Finding(place=place, rule="template", message="a template permits and forbids nothing: write a policy")
        return
    (policy,) = parsed.static_policies.values()
    wrong = [*_annotations(policy), *_invalid(text)]
    if policy.effect == "permit" and policy.annotations.get("id") != BASE and _unconditional(policy):
        wrong.append(
            ("permits-everything", f"this permits everything: name what it is for; only {BASE} may, as it is explained")
        )
    yield from (Finding(place=place, rule=rule, message=message) for rule, message in wrong)
    if not wrong:
        id, reason = policy.annotations["id"], policy.annotations["reason"]
        read = {name.value if isinstance(name, pst.StringLit) else None for name in _tags(policy)}
        tags = None if None in read else frozenset(name for name in read if name is not None)
        yield Statement(id=id, reason=reason, text=text, place=place, tags=tags)


def _annotations(policy: pst.Template) -> Iterator[tuple[str, str]]:
    id, reason = policy.annotations.get("id", ""), policy.annotations.get("reason", "")
    if not id:
        yield "missing-id", 'the policy that begins here needs a name: @id("…")'
    elif _ID.fullmatch(id) is None:
        yield "invalid-id", "an @id is small letters, digits and -, a letter first, 3 to 64 characters"
    if not reason:
        yield "missing-reason", 'the policy that begins here needs a sentence for whoever it refuses: @reason("…")'
    elif _REASON.fullmatch(reason) is None:
        yield "invalid-reason", f"a @reason is one line of at most {_LONGEST} characters"


def _invalid(text: str) -> Iterator[tuple[str, str]]:
    result = validate_policies(text, schema())
    if not result.validation_passed:
        told = {_said(error.error): None for error in result.errors} or {"the schema does not allow it": None}
        yield from (("invalid-policy", message) for message in told)


def _said(error: object) -> str:
    """Cedar's words in one line, without its own number for the policy: a text has one policy here."""
    words = re.sub(r"for policy `policy0`[,:] ", "", str(error))
    return " ".join(words.split())[:_LONGEST]


def _tags(node: object) -> Iterator[object]:
    """The names of the tags that are read somewhere in `node`, as expressions."""
    match node:
        case pst.BinaryOp(op="get_tag" | "has_tag"):
            yield node.right
            yield from _tags(node.left)
            yield from _tags(node.right)
        case tuple() | dict():
            parts = cast("Iterable[object]", node.values() if isinstance(node, dict) else node)
            yield from (name for part in parts for name in _tags(part))
        case _ if is_dataclass(node):
            yield from (name for part in fields(node) for name in _tags(getattr(node, part.name)))
        case _:
            return


def _unconditional(policy: pst.Template) -> bool:
    return (
        _anything(policy.principal, "Workload")
        and _anything(policy.resource, "Entitlement")
        and all(_folded(clause.expr) is isinstance(clause, pst.When) for clause in policy.clauses)
    )


def _anything(constraint: pst.PrincipalOrResourceConstraint, type: str) -> bool:
    match constraint:
        case pst.ScopeAny():
            return True
        case pst.ScopeIs():
            return str(constraint.entity_type) == type
        case _:
            return False


def _folded(expr: pst.Expr) -> bool | None:  # noqa: PLR0911 # a table: one line a kind
    """What a condition always is, None where that depends or cannot be told."""
    match expr:
        case pst.BoolLit():
            return expr.value
        case pst.UnaryOp(op="not"):
            inner = _folded(expr.arg)
            return None if inner is None else not inner
        case pst.BinaryOp(op="and" | "or"):
            sides = {_folded(expr.left), _folded(expr.right)}
            decides = expr.op == "or"
            if decides in sides:
                return decides
            return None if None in sides else not decides
        case pst.BinaryOp(op="eq" | "less_eq" | "greater_eq") if expr.left == expr.right:
            return True
        case pst.Is(in_expr=None):
            kinds = {"principal": "Workload", "resource": "Entitlement"}
            known = kinds.get(expr.base.name) if isinstance(expr.base, pst.Var) else None
            return None if known is None else str(expr.entity_type) == known
        case _:
            return None
