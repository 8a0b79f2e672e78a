"""What applying a plan takes: an ACL policy with exactly the paths that it looks at and writes, and no pattern."""

from collections import defaultdict
from collections.abc import Iterable

from controlplane.engines import places
from controlplane.model.canonical import JsonValue
from controlplane.model.plan import Action, Compiled, Layout, ObjectKind, Plan

_WRITING = {
    Action.CREATE: ("create", "update"),
    Action.REPAIR: ("create", "update"),
    Action.RETIRE: ("delete",),
    Action.DRAIN: (),
    Action.BLOCK: (),
}


def needed(plan: Plan, wanted: Iterable[Compiled], layout: Layout) -> dict[str, JsonValue]:
    """The policy, as Vault takes it. `wanted` are all entitlements: an apply looks at what stands for them, too.

    It fits this plan only: where something else has come to stand in Vault, an apply under it is refused.
    """
    holds = {where.roles: where.holds for where in places(layout) if where.roles is not None}
    may: dict[str, set[str]] = defaultdict(set)
    for folder in (*holds, "sys/policies/acl", f"auth/{layout.auth_mount}/role"):
        may[folder].add("list")
    for compiled in wanted:
        for item in compiled.objects:
            may[item.path].add("read")
    for change in plan.changes:
        may[change.path].update(("read", *_WRITING[change.action]))
        folder, _, name = change.path.rpartition("/")
        if change.kind is ObjectKind.SECRET_ROLE and change.after is None and (hanging := holds[folder]):
            may[f"sys/leases/lookup/{hanging}/{name}"].update(("list", "sudo"))
    rules: dict[str, JsonValue] = {path: {"capabilities": [*sorted(words)]} for path, words in sorted(may.items())}
    return {"path": rules}
