"""Certificates: one key pair and certificate per credential, for names that the scope lists and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, cast

from pydantic import Field, field_validator
from typing_extensions import override

from controlplane.model.canonical import JsonObject, JsonValue
from controlplane.model.entitlement import Placing, Revocability, Scope, distinct
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret
from controlplane.model.wording import explained

EXAMPLE = """\
name: client
engine: pki
common_name: checkout.agents.acme.example
usages: [client]
"""

_ISSUER = explained(
    r"^[a-zA-Z0-9_.-]{1,64}$",
    "letters, digits and _ . - only, at most 64",
)

_CA_TTL = 10 * 365 * 24 * 3600  # seconds

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
Hostname = Annotated[str, Field(pattern=rf"^{_LABEL}(\.{_LABEL})+$", max_length=253)]
Usage = Literal["client", "server"]
KeyType = Literal["ec-p256", "ec-p384", "ed25519"]

_KEYS: Mapping[KeyType, tuple[str, int]] = {"ec-p256": ("ec", 256), "ec-p384": ("ec", 384), "ed25519": ("ed25519", 0)}


class PkiScope(Scope):
    """A certificate for exactly these names, signed by one issuer of Vault's PKI mount."""

    narrows: ClassVar[Mapping[str, Placing]] = {"common_name": Placing.PART}

    common_name: Hostname = Field(description="The name in the certificate.")
    alt_names: tuple[Hostname, ...] = Field(default=(), max_length=16, description="Further DNS names in it.")
    usages: tuple[Usage, ...] = Field(default=("client",), min_length=1, description="TLS as client, server or both.")
    key: KeyType = Field(default="ec-p256", description="What kind of key is made for it.")
    issuer: Annotated[str, Field(pattern=_ISSUER, description="An issuer's name or id.")] = "default"

    @field_validator("alt_names", "usages")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(names, "something is named twice")

    @property
    @override
    def own_clock(self) -> bool:
        """`notAfter` stands in the certificate."""
        return True


@dataclass(frozen=True, slots=True)
class PkiEngine:
    """Source: OpenBao docs, api/secret/pki. The revocation list is the target that can be asked."""

    word: str = "pki"
    scope_model: type[Scope] = PkiScope
    revocability: Revocability = Revocability.PROVABLE
    example: str = EXAMPLE
    unasked: str = ""
    # The mount's ceiling bounds the authority's own certificate, too. Roles bound what it issues.
    mounting: JsonObject = field(default_factory=lambda: {"type": "pki", "config": {"max_lease_ttl": f"{_CA_TTL}s"}})

    def places(self, mount: str) -> Places:
        """Roles at `roles`, leases at `issue`."""
        return Places(roles=f"{mount}/roles", leases=f"{mount}/issue", holds=f"{mount}/issue", own=True)

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """One PKI role. All fields are written, so that none is left to a default of some server version."""
        wanted = _own(scope)
        kind, bits = _KEYS[wanted.key]
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{self._mount(naming)}/roles/{naming.scope(scope.name)}",
                entitlement=naming.entitlement,
                data={
                    **_CLOSED,
                    "allowed_domains": [*_names(wanted)],
                    "key_type": kind,
                    "key_bits": bits,
                    "client_flag": "client" in wanted.usages,
                    "server_flag": "server" in wanted.usages,
                    "issuer_ref": wanted.issuer,
                    "ttl": int(default.total_seconds()),
                    "max_ttl": int(maximum.total_seconds()),
                },
            ),
        )

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Issuing, with these parameters only: `not_after` would reach beyond the role's maximum."""
        wanted = _own(scope)
        parameters: dict[str, JsonValue] = {
            "common_name": [wanted.common_name],
            "alt_names": [",".join(sorted(wanted.alt_names))],
            "private_key_format": ["pkcs8"],
            "ttl": [],
        }
        return {self._path(scope, naming): {"capabilities": ["update"], "allowed_parameters": parameters}}

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A certificate that ends `ttl` from now; it cannot be renewed."""
        wanted = _own(scope)
        return Ask(
            path=self._path(scope, naming),
            body={
                "common_name": wanted.common_name,
                "alt_names": ",".join(sorted(wanted.alt_names)),
                "private_key_format": "pkcs8",
                "ttl": f"{int(ttl.total_seconds())}s",
            },
        )

    def receive(self, scope: Scope, response: Response) -> Credential:
        """Certificate, chain and key as PEM; the principal is the serial number."""
        del scope  # the answer looks the same for every scope
        found = {name: _text(response.data.get(name)) for name in _FIELDS}
        missing = [name for name, value in found.items() if value is None and name != "ca_chain"]
        if missing:
            raise ValueError(f"the certificate authority answered without {', '.join(missing)}")
        fields = {name: Secret(value) for name, value in found.items() if value is not None}
        return Credential(
            lease=response.lease,
            lease_ttl=response.lease_ttl,
            principal=fields["serial_number"].reveal(),
            fields=fields,
        )

    def target(self, scope: Scope) -> Target:
        """The authority's revocation list."""
        del scope  # all scopes share one mount
        return Target(kind="pki", name=self.word)

    def reach(self, scope: Scope) -> Sequence[str]:
        """One sentence."""
        wanted = _own(scope)
        usages = " and ".join(sorted(wanted.usages))
        return [f"may prove to be {', '.join(_names(wanted))} as a TLS {usages}"]

    def _mount(self, naming: Naming) -> str:
        return naming.layout.mounts[self.word]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{self._mount(naming)}/issue/{naming.scope(scope.name)}"


_FIELDS = ("certificate", "private_key", "issuing_ca", "ca_chain", "serial_number")

# A certificate whose lease is not kept, or that is not stored, could not be revoked.
_CLOSED: JsonObject = {
    "generate_lease": True,
    "no_store": False,
    "allow_bare_domains": True,  # exactly the names in allowed_domains
    "allow_any_name": False,
    "allow_glob_domains": False,
    "allow_ip_sans": False,
    "allow_localhost": False,
    "allow_subdomains": False,
    "allow_wildcard_certificates": False,
    "allowed_domains_template": False,
    "allowed_other_sans": [],
    "allowed_serial_numbers": [],
    "allowed_uri_sans": [],
    "allowed_uri_sans_template": False,
    "allowed_user_ids": [],
    "basic_constraints_valid_for_non_ca": False,
    "cn_validations": ["hostname"],
    "code_signing_flag": False,
    "email_protection_flag": False,
    "enforce_hostnames": True,
    "ext_key_usage": [],
    "ext_key_usage_oids": [],
    "key_usage": ["DigitalSignature"],
    "not_after": "",
    "not_after_bound": "forbid",
    "not_before_bound": "forbid",
    "not_before_duration": 30,  # seconds that a target's clock may lag behind
    "policy_identifiers": [],
    "require_cn": True,
    "signature_bits": 0,
    "use_csr_common_name": False,
    "use_csr_sans": False,
    "use_pss": False,
    "organization": [],
    "ou": [],
    "country": [],
    "province": [],
    "locality": [],
    "street_address": [],
    "postal_code": [],
}


def _own(scope: Scope) -> PkiScope:
    return cast("PkiScope", scope)


def _names(scope: PkiScope) -> list[str]:
    return [scope.common_name, *sorted(scope.alt_names)]


def _text(value: object) -> str | None:
    match value:
        case Secret():
            return value.reveal()
        case list():
            parts = cast("list[Secret]", value)
            return "\n".join(part.reveal() for part in parts)
        case _:
            return None


ENGINE = PkiEngine()
