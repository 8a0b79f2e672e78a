"""The policies of our own identities: JSON files in `vault-config/policies/`, filled in for one layout.

A placeholder is replaced in parsed JSON, by a name that was checked; text is never pasted into text. What comes out
is canonical JSON, parsed back and compared before anybody sends it to Vault.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, JsonValue

import controlplane
from controlplane.engines import places
from controlplane.model.canonical import canonical
from controlplane.model.errors import ConfigurationError
from controlplane.model.plan import MAX_PREFIX, Layout

IDENTITIES: Final = ("broker", "sync", "responder", "drift", "param", "rotate")

_PLACEHOLDER: Final = re.compile(r"\$\{([a-z_]+(?::[a-z0-9-]+)?)\}")
_PREFIX: Final = re.compile(rf"[a-z][a-z0-9]{{0,{MAX_PREFIX - 1}}}", re.ASCII)
_MOUNT: Final = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_RESERVED: Final = {"auth", "cubbyhole", "identity", "sys"}
_PATH: Final = re.compile(r"[a-z0-9-]+(/[a-z0-9-]+)*(/?\*)?", re.ASCII)  # `*` means anything at the end only


def identity_name(layout: Layout, identity: str) -> str:
    """The JWT mount of one identity, and its policy: `shorthold-broker`."""
    return f"{layout.auth_mount}-{identity}"


def policy_of(layout: Layout, identity: str) -> str:
    """The policy of one identity in this layout, as canonical JSON.

    Raises: ConfigurationError: a name of the layout is no name, or the shipped file is damaged.
    """
    names = _names(layout)
    file = _directory() / f"{identity}.json"
    filled: dict[str, JsonValue] = {}
    if not places(layout):
        raise ConfigurationError("vault.mounts names no engine that there is")
    for path, rule in _paths(file).items():
        said = _rule(rule, names)
        if said is None:
            continue
        for where in _filled(path, names):  # none where this layout does not use the engine
            if not _PATH.fullmatch(where) or where in filled:
                raise ConfigurationError(f"the policy {file} has a path that means something else: {where}")
            filled[where] = said
    text = canonical({"path": filled}).decode()
    if json.loads(text) != {"path": filled}:
        raise ConfigurationError(f"the policy {file} does not survive being written")
    return text


class _Policy(BaseModel, extra="forbid"):
    path: dict[str, JsonValue] = Field(min_length=1)


def _paths(file: Path) -> Mapping[str, JsonValue]:
    try:
        return _Policy.model_validate_json(file.read_bytes()).path
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the policy {file} cannot be read: {error}") from None


def _names(layout: Layout) -> Mapping[str, tuple[str, ...]]:
    """What stands for each placeholder: one name, or the folder of every engine there is."""
    names = {"prefix": (layout.prefix,), "auth_mount": (layout.auth_mount,)}
    mounts = {f"mount:{engine}": (mount,) for engine, mount in layout.mounts.items()}
    if not _PREFIX.fullmatch(layout.prefix):
        raise ConfigurationError("vault.prefix must be a few lower-case letters and digits")
    for mount in (layout.auth_mount, *layout.mounts.values()):
        if not _MOUNT.fullmatch(mount) or mount in _RESERVED:
            raise ConfigurationError(f"{mount[:50]!r} cannot be the name of a mount of ours")
    if f"{layout.auth_mount}-".startswith(f"{layout.prefix}-"):
        raise ConfigurationError(
            f"vault.auth_mount {layout.auth_mount!r} begins with vault.prefix {layout.prefix!r}: "
            "the identity that writes entitlements could rewrite the policies of all identities"
        )
    found = places(layout)
    folders = {
        "roles": tuple(where.roles for where in found if where.roles is not None),
        "leases": tuple(where.leases for where in found if where.leases is not None),
        "own": tuple(where.roles for where in found if where.own and where.roles is not None),
        "holds": tuple(where.holds for where in found if where.holds is not None),
    }
    return names | mounts | folders


def _rule(rule: JsonValue, names: Mapping[str, tuple[str, ...]]) -> JsonValue:
    """`rule` with its texts filled in; None where that leaves a list empty, which would allow any value."""
    match rule:
        case list():
            items = [filled for item in rule for filled in (_filled(item, names) if isinstance(item, str) else [item])]
            return None if rule and not items else list(items)
        case dict():
            parts = {key: _rule(value, names) for key, value in rule.items()}
            return None if None in parts.values() else parts
        case _:
            return rule


def _filled(text: str, names: Mapping[str, tuple[str, ...]]) -> Sequence[str]:
    """`text` once for each thing that its placeholders stand for."""
    found = _PLACEHOLDER.search(text)
    if found is None:
        return [text]
    name = found[1]
    if name not in names and not name.startswith("mount:"):
        raise ConfigurationError(f"a shipped policy names the unknown placeholder {name!r}")
    before, after = text[: found.start()], _filled(text[found.end() :], names)
    return [f"{before}{value}{rest}" for value in names.get(name, ()) for rest in after]


def _directory() -> Path:
    """`vault-config/policies/` as it came with this installation: in the wheel, or in a clone."""
    package = Path(controlplane.__file__).parent
    inside = package / "shipped" / "vault-config"
    return (inside if inside.exists() else package.parent / "vault-config") / "policies"
