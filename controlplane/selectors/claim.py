"""`claim.<path>`: what the token claims; of a list, any of its members. `/` descends, as in eligibility."""

from collections.abc import Iterable, Iterator, Mapping

from controlplane.model.canonical import JsonValue
from controlplane.model.selection import Asking, Kept, Selector


def _claimed(asking: Asking) -> Mapping[str, Iterable[str]]:
    """Every path with something at it: what `model.identity.claim_at` finds there, and nothing else."""
    nested = dict(_below("", asking.claims))
    return nested | {path: _texts(value) for path, value in asking.claims.items()}  # a whole name wins over a descent


def _below(above: str, claims: Mapping[str, JsonValue]) -> Iterator[tuple[str, list[str]]]:
    for name, value in claims.items():
        if "/" in name:
            continue  # a descent never finds it
        yield f"{above}{name}", _texts(value)
        if isinstance(value, dict):
            yield from _below(f"{above}{name}/", value)


def _texts(value: JsonValue) -> list[str]:
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
    kept=Kept.NOTE,
    note=_claimed,
    named=True,
    of_caller=True,
)
