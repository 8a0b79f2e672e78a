"""`.shorthold/shorthold.toml`: how the control plane finds the servers that `dev up` started."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard, cast

from controlplane.dev import issuer, loopback
from controlplane.dev.engines import CONNECTION
from controlplane.dev.home import Home, write_private
from controlplane.dev.orders import DATABASE
from controlplane.dev.outside import Target
from controlplane.dev.shipped import code_digest, shipped
from controlplane.model.access import Role
from controlplane.model.errors import ConfigurationError
from controlplane.model.plan import Layout
from controlplane.settings import VaultSettings, in_clear

AUDITOR: Final = "auditor"
"""The subject of the dev issuer that may read the audit log."""

_HEAD: Final = "# Written by `shorthold dev up`, every time: what you change here is lost.\n# For the code {code}.\n"
"""With the code's digest, so that other code is another configuration: a control plane of either is started anew."""


def write_configuration(
    home: Home, project: Path, *, vault: VaultSettings, layout: Layout, target: Target, issuer_url: str
) -> bool:
    """Write the file (0600, absolute paths). Whether it is other than before."""
    keys = home.part("keys")
    document: dict[str, Any] = {
        "roles": str(roles_directory(project)),
        "policies": str(policies_directory(project)),
        "environment": "dev",
        "api": {"host": loopback.HOST, "port": home.known_port("serve"), "rate": "1000/s"},
        "store": {"url": f"sqlite:///{home.directory / 'shorthold.db'}"},
        "keys": {"directory": str(keys)},
        "vault": {
            **_server(vault),
            "prefix": layout.prefix,
            "auth_mount": layout.auth_mount,
            "audience": layout.audience,
            "mounts": dict(layout.mounts),
            "broker": _identity(layout, keys, "broker"),
            "sync": _identity(layout, keys, "sync"),
            "param": _identity(layout, keys, "param"),
            "rotate": _identity(layout, keys, "rotate"),
            "drift": _identity(layout, keys, "drift"),
        },
        "drift": {"known": ["sys/policies/acl/shorthold-bootstrap"]},  # the embedded server's operator
        "issuers": [
            {"name": issuer.NAME, "url": issuer_url, "audiences": [issuer.AUDIENCE], "signals": [issuer.SIGNALS]}
        ],
        "targets": {
            CONNECTION: {
                "kind": "postgresql",
                "host": target.host,
                "port": target.port,
                "database": DATABASE,
                "sslmode": target.sslmode,
            }
        },
        "access": [
            {"issuer": issuer.NAME, "subject": AUDITOR, "roles": [Role.AUDITOR]},
            *({"issuer": issuer.NAME, "claims": {"role": role}, "roles": [role], "groups": "groups"} for role in Role),
        ],
    }
    text = _HEAD.format(code=code_digest()) + _toml(document)
    if not _reads_back(text, document):
        raise ConfigurationError(f"{home.directory}: its path has characters that a configuration file cannot hold")
    before = configuration_file(home).read_text(encoding="utf-8") if configuration_file(home).exists() else ""
    write_private(configuration_file(home), text)
    return text != before


def roles_directory(project: Path) -> Path:
    """The project's own entitlements if it has any, else the shipped examples."""
    own = project / "roles"
    return own if own.is_dir() else shipped("roles")


def policies_directory(project: Path) -> Path:
    """The policies beside the project's own entitlements if there are any, else the shipped ones."""
    own = roles_directory(project) / "policies"
    return own if own.is_dir() else shipped("roles") / "policies"


def configuration_file(home: Home) -> Path:
    """The file itself."""
    return home.directory / "shorthold.toml"


def _reads_back(text: str, document: Mapping[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == document
    except tomllib.TOMLDecodeError:
        return False


def _server(vault: VaultSettings) -> dict[str, Any]:
    given = vault.model_dump(mode="json", include={"addr", "namespace", "cacert", "client_cert", "client_key"})
    options = {
        "skip_verify": vault.skip_verify,
        "plaintext": in_clear(vault.addr),
        "max_request_duration": f"{vault.max_request_duration.seconds}s",
    }
    return {**{name: value for name, value in given.items() if value is not None}, **options}


def _identity(layout: Layout, keys: Path, name: str) -> dict[str, str]:
    return {"mount": f"{layout.auth_mount}-{name}", "role": name, "key_file": str(keys / f"{name}.pem")}


def _toml(document: Mapping[str, Any], path: str = "") -> str:
    """`document` as TOML: values, then tables; a list of objects becomes `[[…]]`. A JSON string is a TOML string."""
    lines: list[str] = []
    tables: list[str] = []
    for name, value in document.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict):
            inner = _toml(cast("dict[str, Any]", value), here)
            tables.append(inner if inner.startswith("\n") else f"\n[{here}]\n{inner}")
        elif _is_list_of_tables(value):
            tables.extend(f"\n[[{here}]]\n{_toml(item, here)}" for item in value)
        else:
            lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}\n")
    return "".join((*lines, *tables))


def _is_list_of_tables(value: object) -> TypeGuard[list[dict[str, Any]]]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return items != [] and all(isinstance(item, dict) for item in items)
