"""What the server behind us is and can: asked of itself, with the token at hand, and never guessed from its name.

The OpenAPI document lists the paths that a server has; every token may read it, and sees the mounts it has a right in.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controlplane.engines import places
from controlplane.model.canonical import JsonValue
from controlplane.model.errors import VaultUnavailableError
from controlplane.model.plan import Layout
from controlplane.vault.client import VaultClient, part


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One thing that a server may have. `there` is None where this token cannot see it."""

    name: str
    there: bool | None
    used: bool
    note: str

    @property
    def missing(self) -> bool:
        """Whether we need it and it is not there."""
        return self.used and self.there is False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """The server, as it describes itself."""

    product: str
    version: str
    seal: str
    namespace: str
    features: tuple[Feature, ...]

    @property
    def unseals_itself(self) -> bool:
        """Whether nobody has to come after a restart: with Shamir's shares somebody has."""
        return self.seal != "shamir"

    @property
    def data(self) -> dict[str, JsonValue]:
        """The same for machines."""
        return {
            "product": self.product,
            "version": self.version,
            "seal": self.seal,
            "unseals_itself": self.unseals_itself,
            "namespace": self.namespace,
            "features": [
                {"name": one.name, "there": one.there, "used": one.used, "note": one.note} for one in self.features
            ],
        }

    def __str__(self) -> str:
        """In one line: what it is, what is used of it, what is there and not used, and what it lacks."""
        place = f", namespace {self.namespace}" if self.namespace else ""
        told = [
            _named("uses", (one for one in self.features if one.used and one.there)),
            _named("MISSING", (one for one in self.features if one.missing)),
            _named("not used", (one for one in self.features if one.there and not one.used)),
            _named("not there, not needed", (one for one in self.features if one.there is False and not one.used)),
        ]
        return "; ".join([f"{self.product} {self.version}, seal {self.seal}{place}", *filter(None, told)])


def look(client: VaultClient, layout: Layout, engines: Iterable[str] = ()) -> ServerFacts:
    """What the server is; `engines` are the words of those that are needed.

    Raises: VaultRefusedError, VaultUnavailableError: it does not say.
    """
    seal = client.adapter.request("GET", "sys/seal-status") or {}
    document = client.adapter.request("GET", "sys/internal/specs/openapi")
    info, paths = part(document, "info"), part(document, "paths")
    version, product = str(seal.get("version", "")), _PRODUCTS.get(str(info.get("title", "")))
    if product is None or not version:
        raise VaultUnavailableError("the server does not say what it is: vault.addr names something else")
    namespace = client.transport.server.namespace or ""
    # Vault's Community edition lists paths of the Enterprise edition and refuses them.
    free = product == "OpenBao" or "+ent" in version
    found = (
        Feature(
            name=name,
            there=any(re.search(shape, path) for path in paths) and (free or not paid),
            used=name == "namespaces" and bool(namespace),
            note=note,
        )
        for name, shape, paid, note in _FEATURES
    )
    return ServerFacts(
        product=product,
        version=version,
        seal=str(seal.get("type", "")),
        namespace=namespace.strip("/"),
        features=(*found, *(_engine(word, layout, paths) for word in sorted(set(engines)))),
    )


_PRODUCTS: Final = {"OpenBao API": "OpenBao", "HashiCorp Vault API": "Vault"}
_FEATURES: Final = (
    ("namespaces", r"^/sys/namespaces/?$", True, "set vault.namespace, and everything lives below it"),
    ("cel-roles", r"^/auth/.+/cel/login$", False, "whoever may write one may be anybody, so sync may not"),
    ("control-groups", r"^/sys/control-group/request$", True, "Shorthold asks people before anything exists"),
    ("lease-count-quotas", r"^/sys/quotas/lease-count", True, "Shorthold keeps the budgets of context itself"),
)


def _engine(word: str, layout: Layout, paths: Iterable[str]) -> Feature:
    mount = layout.mounts[word]
    (where,) = places(Layout(mounts={word: mount}))
    seen = where.roles is not None and where.roles.startswith(f"{mount}/")  # else our token has no business there
    there = any(path.startswith(f"/{mount}/") for path in paths) if seen else None
    return Feature(name=f"engine-{word}", there=there, used=True, note=f"mounted at {mount}/ by `vault bootstrap`")


def _named(label: str, features: Iterable[Feature]) -> str:
    names = ", ".join(one.name for one in features)
    return f"{label}: {names}" if names else ""
