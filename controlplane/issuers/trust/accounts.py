"""Every claim of a token accounted for: which can be selected by, which are only kept, and that each has its shape."""

from collections.abc import Iterable, Mapping, Sequence

from controlplane.issuers.trust.kind import Claim
from controlplane.model.canonical import JsonValue

Claims = Mapping[str, JsonValue]


def sort_out(claims: Claims, table: Mapping[str, Claim], named: Sequence[str] | None) -> tuple[Claims, Claims]:
    """The claims that can be selected by, and the others.

    Those of the table that are not ignored, and those that the operator `named`; with None all that are not ignored.
    """
    if named is None:
        others, kept = _parted(claims, [path for path, claim in table.items() if claim.ignored])
    else:
        kept, others = _parted(claims, [*(path for path, claim in table.items() if not claim.ignored), *named])
    return kept, others


def misshapen(value_of: Mapping[str, JsonValue], table: Mapping[str, Claim]) -> Sequence[str]:
    """Claims that are there, as `value_of` their paths says, and are not what the issuer always writes."""
    return [path for path, value in value_of.items() if value is not None and not table[path].shape(value)]


def _parted(claims: Claims, paths: Iterable[str]) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    """What stands at `paths`, and the rest; `/` descends, but a name that itself has one wins, as in `claim`."""
    wanted = frozenset(paths)
    found: dict[str, JsonValue] = {}
    rest: dict[str, JsonValue] = {}
    for name, value in claims.items():
        if name in wanted:
            found[name] = value
        elif isinstance(value, dict) and (deeper := _below(name, wanted)):
            inner, outer = _parted(value, deeper)
            found |= {name: inner} if inner else {}
            rest |= {name: outer} if outer else {}
        else:
            rest[name] = value
    return found, rest


def _below(name: str, paths: Iterable[str]) -> frozenset[str]:
    return frozenset(path.removeprefix(f"{name}/") for path in paths if path.startswith(f"{name}/"))
