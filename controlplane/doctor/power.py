"""What each of our identities must be able to do at Vault, exactly, and must not: held against what Vault says."""

from collections.abc import Iterator, Mapping, Sequence

from controlplane.doctor.finding import Finding, broken, sound
from controlplane.engines import places
from controlplane.model.canonical import JsonValue
from controlplane.model.plan import OF_GRANT, Layout
from controlplane.vault.census import epoch_path
from controlplane.vault.client import VaultClient, part


def power(name: str, client: VaultClient, expected: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Whether `client` logs in and has exactly the power that is `expected` at these paths.

    Raises: VaultRefusedError, VaultUnavailableError: it does not log in.
    """
    asked: list[JsonValue] = [*expected]
    answer = part(client.write("sys/capabilities-self", {"paths": asked}), "data")
    wrong: list[str] = []
    for path, wanted in expected.items():
        has = answer.get(path)
        shown = sorted(str(word) for word in has) if isinstance(has, list) else ["nothing"]
        if shown != sorted(wanted):
            wrong.append(f"{path} ({', '.join(shown)} instead of {', '.join(wanted)})")
    if wrong:
        yield broken(
            name,
            f"has other power than it should: {'; '.join(wrong)}",
            "Run `shorthold vault bootstrap`, and see who changed its policy.",
        )
    else:
        yield sound(name, f"logs in, and has exactly the power it should at {len(expected)} paths")


def broker_power(layout: Layout) -> Mapping[str, Sequence[str]]:
    """What the broker must have, exactly, at paths that tell; `deny` is nothing at all."""
    mounts = sorted(layout.mounts.values())
    own = f"{layout.prefix}-x"
    leased = any(where.leases is not None for where in places(layout))
    return {
        "auth/token/accessors": ["list", "sudo"],
        "auth/token/lookup-accessor": ["update"],
        "auth/token/revoke-accessor": ["update"],
        **dict.fromkeys(("sys/leases/lookup", "sys/leases/revoke"), ["update"] if leased else ["deny"]),
        epoch_path(layout): ["read", "update"],
        f"sys/policies/acl/{own}": ["deny"],
        f"sys/policies/acl/{layout.auth_mount}-broker": ["deny"],
        f"auth/{layout.auth_mount}/role/{own}": ["deny"],
        f"auth/{layout.auth_mount}/config": ["deny"],
        "auth/token/create": ["deny"],
        "sys/mounts": ["deny"],
        "sys/auth": ["deny"],
        "sys/seal": ["deny"],
        "sys/audit": ["deny"],
        f"sys/leases/revoke-prefix/{mounts[0]}": ["deny"],
        f"sys/leases/revoke-force/{mounts[0]}": ["deny"],
        "secret/data/x": ["deny"],
        **{f"{mount}/{verb}/{own}": ["deny"] for mount in mounts for verb in ("creds", "issue", "roles")},
        **{f"{mount}/config/x": ["deny"] for mount in mounts},
    }


def sync_power(layout: Layout) -> Mapping[str, Sequence[str]]:
    """What sync must have, and must not."""
    every = ["create", "delete", "read", "update"]
    own = f"{layout.prefix}-x"
    return {
        f"sys/policies/acl/{own}": every,
        f"auth/{layout.auth_mount}/role/{own}": every,
        f"sys/policies/acl/{layout.auth_mount}-broker": ["deny"],
        f"auth/{layout.auth_mount}-broker/role/broker": ["deny"],
        f"auth/{layout.auth_mount}/config": ["deny"],
        "auth/token/create": ["deny"],
        "auth/token/revoke-accessor": ["deny"],
        "sys/mounts": ["deny"],
        "sys/seal": ["deny"],
        epoch_path(layout): ["deny"],
        **{f"{mount}/creds/{own}": ["deny"] for mount in layout.mounts.values()},
    }


def param_power(layout: Layout) -> Mapping[str, Sequence[str]]:
    """What the identity that makes roles for single grants must have, and must not."""
    folders = [where.roles for where in places(layout) if where.own and where.roles is not None]
    mounts = [layout.mounts[engine] for engine in sorted(layout.mounts)]
    own = f"{layout.prefix}-{OF_GRANT}x"
    return {
        **{f"{folder}/{own}": ["create", "delete", "read", "update"] for folder in folders},
        **{f"{folder}/{layout.prefix}-x": ["deny"] for folder in folders},
        **{f"{mount}/{verb}/{own}": ["deny"] for mount in mounts for verb in ("creds", "issue")},
        **{f"{mount}/config/x": ["deny"] for mount in mounts},
        f"sys/policies/acl/{own}": ["deny"],
        f"auth/{layout.auth_mount}/role/{own}": ["deny"],
        "auth/token/create": ["deny"],
        "auth/token/revoke-accessor": ["deny"],
        "sys/leases/revoke": ["deny"],
    }


def rotate_power(layout: Layout) -> Mapping[str, Sequence[str]]:
    """What the identity that replaces static secrets must have, and must not: it reads none, and rules over nothing."""
    mounts = [mount for engine, mount in sorted(layout.mounts.items()) if engine != "kv"]
    own, kv = f"{layout.prefix}-x", layout.mounts.get("kv")
    secrets = {
        f"{kv}/data/x": ["patch"],
        f"{kv}/metadata/x": ["read"],
        **{f"{kv}/{verb}": ["deny"] for verb in ("config", "delete/x", "destroy/x", "undelete/x", "subkeys/x")},
    }
    return {
        **(secrets if kv is not None else {}),
        **{f"{mount}/{verb}/{own}": ["deny"] for mount in mounts for verb in ("creds", "issue", "roles")},
        **{f"{mount}/config/x": ["deny"] for mount in mounts},
        f"sys/policies/acl/{own}": ["deny"],
        f"auth/{layout.auth_mount}/role/{own}": ["deny"],
        "auth/token/create": ["deny"],
        "auth/token/revoke-accessor": ["deny"],
        "sys/leases/revoke": ["deny"],
    }
