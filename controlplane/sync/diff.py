"""The difference between what entitlements want and what stands in Vault. Pure; needs no state file.

Names carry content, so a missing name is a creation, the same name with other content is drift, and a name of
ours that nobody wants is retired: its JWT role at once, so that nobody logs in any more, and the rest when no
lease hangs from it, because Vault revokes a lease with what its role says at that moment.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final

from controlplane.model.canonical import JsonObject, JsonValue, canonical
from controlplane.model.grant import Revision
from controlplane.model.plan import Action, Change, Compiled, Layout, ObjectKind, Plan, VaultObject
from controlplane.sync.canary import is_closed
from controlplane.sync.ours import Origin, origin

_ORDER: Final = {kind: place for place, kind in enumerate(ObjectKind)}

# What only some servers know and read back. A field that a server does not show is one it does not have.
_SOME_SERVERS: Final = frozenset(
    {"not_after_bound", "not_before_bound", "token_strictly_bind_ip", "token_policies_template_claims"}
)
_WHERE: Final = frozenset({"db_name"})
"""Fields that say where a role's leases are made and revoked. Every other edit is better undone at once."""
_SETTLED: Final = {Action.DRAIN: Action.RETIRE, Action.BLOCK: Action.REPAIR}
"""What becomes of a change once no lease hangs any more."""
# What a server fills in by itself, and what means the same as leaving it out.
_FILLED_IN: Final[JsonObject] = {"callback_mode": "client"}


def difference(
    layout: Layout,
    wanted: Iterable[Compiled],
    present: Mapping[str, VaultObject],
    *,
    leases: Mapping[str, int],
) -> Plan:
    """What would have to change so that exactly `wanted` stands in Vault.

    `present` is by path; what is not ours in it is ignored. `leases` tells how many leases hang from each secret
    role that stands there; a path that is missing has none.
    """
    wanted = list(wanted)
    targets = {item.path: item for compiled in wanted for item in compiled.objects}
    ours = {
        path: (item, where) for path, item in present.items() if (where := origin(layout, item.kind, path)) is not None
    }
    changes = [
        _put(item, ours[path][0] if path in ours else None, leases.get(path, 0)) for path, item in targets.items()
    ]
    unwanted = {path: found for path, found in ours.items() if path not in targets}
    busy = _busy(ours.values(), leases)
    revisions = {compiled.entitlement.name: compiled.revision for compiled in wanted}
    changes += [_away(item, busy.get(where, 0), revisions.get(where.entitlement)) for item, where in unwanted.values()]
    ordered = tuple(sorted((change for change in changes if change is not None), key=_place))
    return Plan(changes=ordered, digest=digest(ordered))


def digest(changes: Iterable[Change]) -> str:
    """What binds an apply to the plan that was shown: 64 hex digits over all changes.

    How many leases still hang is left out: it changes by the second and decides only whether something waits.
    """
    told: list[JsonValue] = [
        {
            "action": _SETTLED.get(change.action, change.action),
            "kind": change.kind,
            "path": change.path,
            "before": None if change.before is None else dict(change.before),
            "after": None if change.after is None else dict(change.after),
        }
        for change in changes
    ]
    return hashlib.sha256(canonical(told)).hexdigest()


def drift(wanted: VaultObject, present: JsonObject) -> tuple[str, ...]:
    """The fields in which what stands at `wanted.path` differs from it; empty where it stands as compiled.

    A field that `wanted` does not name may be there only if it is empty: a newer server's default, say.
    """
    if wanted.kind is ObjectKind.POLICY:
        return () if _rules(wanted.data) == _rules(present) else ("policy",)
    differing = [
        name
        for name, value in wanted.data.items()
        if not (name in _SOME_SERVERS and name not in present) and not _same(value, present.get(name))
    ]
    return tuple(sorted([*differing, *_foreign(wanted, present)]))


def _foreign(wanted: VaultObject, present: JsonObject) -> list[str]:
    return [
        name for name, value in present.items() if name not in wanted.data and value and value != _FILLED_IN.get(name)
    ]


def _same(wanted: JsonValue, present: JsonValue) -> bool:
    if isinstance(wanted, str) and isinstance(present, dict) and wanted:
        return _parsed(wanted) == present  # an object that Vault takes as text only, and shows as what it is
    return wanted == present or (not wanted and not present)


def _parsed(text: str) -> JsonValue:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _rules(data: JsonObject) -> JsonValue:
    text = data.get("policy")
    return _parsed(text) if isinstance(text, str) else None  # HCL that somebody wrote by hand stays text


def _put(wanted: VaultObject, present: VaultObject | None, leases: int) -> Change | None:
    if present is None:
        return _change(Action.CREATE, wanted, None, wanted.data, "it is not in Vault")
    if wanted.kind is ObjectKind.JWT_ROLE and is_closed(present.data):
        why = "an apply broke off while it was open to its canary only"
        return _change(Action.CREATE, wanted, None, wanted.data, why)
    fields = drift(wanted, present.data)
    if not fields:
        return None
    # Vault keeps a field that a write does not name, so what others added is written empty.
    after = dict(wanted.data)
    if wanted.kind is not ObjectKind.POLICY:
        after |= {name: _empty(present.data[name]) for name in _foreign(wanted, present.data)}
    why = f"somebody changed {', '.join(fields)} in Vault since it was applied"
    if leases and _WHERE.intersection(fields):
        why += f", and {_hanging(leases)}: repaired now, they would be revoked where they may not be"
        return _change(Action.BLOCK, wanted, present.data, after, why)
    return _change(Action.REPAIR, wanted, present.data, after, why)


def _empty(value: JsonValue) -> JsonValue:
    match value:
        case bool():
            return False
        case int() | float():
            return 0
        case str():
            return ""
        case list():
            return []
        case _:
            return {}


def _busy(ours: Iterable[tuple[VaultObject, Origin]], leases: Mapping[str, int]) -> dict[Origin, int]:
    """How many leases hang from all roles of a revision: its policy waits for them as its roles do."""
    counts: dict[Origin, int] = {}
    for item, where in ours:
        if item.kind is ObjectKind.SECRET_ROLE:
            counts[where] = counts.get(where, 0) + leases.get(item.path, 0)
    return counts


def _away(item: VaultObject, leases: int, revision: Revision | None) -> Change:
    """`revision` is what stands for the same entitlement from now on, None where nobody wants it any more."""
    cause = "no entitlement wants it" if revision is None else f"revision {revision} replaces it"
    if item.kind is ObjectKind.JWT_ROLE:
        return _change(Action.RETIRE, item, item.data, None, f"{cause}: nobody logs in here any more")
    if leases:
        why = f"{cause}, but {_hanging(leases)}"
        return _change(Action.DRAIN, item, item.data, None, why)
    return _change(Action.RETIRE, item, item.data, None, f"{cause} and no lease hangs from it")


def _hanging(leases: int) -> str:
    return f"{leases} lease{'s hang' if leases > 1 else ' hangs'} from it still"


def _change(action: Action, item: VaultObject, before: JsonObject | None, after: JsonObject | None, why: str) -> Change:
    return Change(
        action=action,
        kind=item.kind,
        path=item.path,
        entitlement=item.entitlement,
        before=before,
        after=after,
        why=why,
    )


def _place(change: Change) -> tuple[str, bool, int, str]:
    """Entitlement by entitlement: what comes in the order of its need, then what goes in reverse.

    So the old login goes right after the new one has come (docs/adr/0030-one-revision-to-the-next.md).
    """
    goes = change.after is None
    order = _ORDER[change.kind]
    return (change.entitlement, goes, -order if goes else order, change.path)
