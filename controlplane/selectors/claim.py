"""`claim.<path>`: what the token claims; of a list, any of its members. `/` descends, as in eligibility."""

from collections.abc import Iterable

from controlplane.model.canonical import JsonValue
from controlplane.model.identity import claim_at
from controlplane.model.selection import Selectable, Selector


def _claimed(one: Selectable, path: str) -> Iterable[str]:
    value = claim_at(one.claims, path)
    said = value if isinstance(value, list) else [value]
    return [text for each in said if (text := _text(each)) is not None]


def _text(value: JsonValue) -> str | None:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            return None


SELECTOR = Selector(
    word="claim",
    about="a claim of the token by its path; of a list, any member",
    example="claim.kubernetes.io/namespace=agents",
    values=_claimed,
    named=True,
    of_caller=True,
)
