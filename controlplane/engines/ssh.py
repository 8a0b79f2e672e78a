"""SSH logins: one key pair and user certificate per credential, for the accounts that the scope lists.

OpenBao makes the pair (`ssh/issue`), so that a request needs to carry nothing; see docs/adr/0023.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, cast

from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType, load_ssh_public_identity
from pydantic import AfterValidator, Field, field_validator
from typing_extensions import override

from controlplane.model.canonical import JsonObject
from controlplane.model.entitlement import Placing, Revocability, Scope, distinct
from controlplane.model.excess import excess
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.network import Network
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret
from controlplane.model.wording import explained

EXAMPLE = """\
name: shell
engine: ssh
principals: [deploy]
source_addresses: [10.0.0.0/8]
command: /usr/local/bin/restart-checkout
"""


_NOT_BEFORE = 30  # seconds that a server's clock may lag behind
_KEY = "ed25519"
# Vault takes an empty list of allowed critical options for "any": one that does not exist means none.
_NONE = "none"


def _account(name: str) -> str:
    if name == "root":
        raise excess("superuser", "root is every account: name the one that the task needs")
    return name


def _network(network: Network) -> Network:
    if network.prefixlen == 0:
        raise ValueError(
            f"{network} is every address there is: leave source_addresses out, or name the networks closer"
        )
    return network


Principal = Annotated[
    str,
    Field(
        pattern=explained(
            r"^[a-z_][a-z0-9_.-]{0,31}$", "small letters, digits and _ . - only, a letter or _ first, at most 32"
        )
    ),
    AfterValidator(_account),
]
# No character that a shell would take for more than itself: sshd hands the command to the account's shell.
Command = Annotated[
    str,
    Field(
        pattern=explained(
            r"^/[A-Za-z0-9_./:=@,+-]+( [A-Za-z0-9_./:=@,+-]+)*$",
            "the path of a program and plain words, one blank between",
        ),
        max_length=200,
    ),
]
Extension = Literal["permit-pty", "permit-port-forwarding", "permit-agent-forwarding", "permit-X11-forwarding"]


class SshScope(Scope):
    """Logins as these accounts, at every server that trusts the certificate authority of Vault's SSH mount."""

    narrows: ClassVar[Mapping[str, Placing]] = {"principals": Placing.ALONE}

    principals: tuple[Principal, ...] = Field(min_length=1, max_length=16, description="Accounts at the servers.")
    source_addresses: tuple[Annotated[Network, AfterValidator(_network)], ...] = Field(
        default=(), max_length=32, description="The login comes from one of these networks."
    )
    command: Command | None = Field(default=None, description="The only command that runs, whatever is asked for.")
    extensions: tuple[Extension, ...] = Field(default=(), description="What sshd allows besides running a command.")

    @field_validator("principals", "source_addresses", "extensions")
    @classmethod
    def _distinct(cls, names: tuple[object, ...]) -> tuple[object, ...]:
        return distinct(names, "something is named twice")

    @property
    def critical(self) -> dict[str, str]:
        """The certificate's critical options: a server that does not know one of them lets nobody in."""
        networks = ",".join(sorted(str(network) for network in self.source_addresses))
        return {
            **({"source-address": networks} if networks else {}),
            **({} if self.command is None else {"force-command": self.command}),
        }

    @property
    @override
    def own_clock(self) -> bool:
        """The end stands in the certificate."""
        return True

    @override
    def doubts(self) -> Iterator[str]:
        """Powers that reach beyond the server."""
        for extension in self.extensions:
            if extension in {"permit-agent-forwarding", "permit-port-forwarding"}:
                yield f"{extension} leads from the server to others: leave it out"


@dataclass(frozen=True, slots=True)
class SshEngine:
    """Source: OpenBao docs, api/secret/ssh; OpenSSH PROTOCOL.certkeys."""

    word: str = "ssh"
    scope_model: type[Scope] = SshScope
    revocability: Revocability = Revocability.EXPIRING
    example: str = EXAMPLE
    unasked: str = "no server asks anybody before it lets a certificate in, unless its revocation list has the serial"
    mounting: JsonObject = field(default_factory=lambda: {"type": "ssh"})

    def places(self, mount: str) -> Places:
        """Roles at `roles`. Vault keeps no lease of a certificate."""
        return Places(roles=f"{mount}/roles", leases=None, holds=None, own=True)

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """One role. All fields are written, so that none is left to a default of some server version."""
        wanted = _own(scope)
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{naming.layout.mounts[self.word]}/roles/{naming.scope(scope.name)}",
                entitlement=naming.entitlement,
                data={
                    **_CLOSED,
                    "allowed_users": _principals(wanted),
                    "default_critical_options": dict(wanted.critical),
                    "default_extensions": dict.fromkeys(wanted.extensions, ""),
                    "ttl": int(default.total_seconds()),
                    "max_ttl": int(maximum.total_seconds()),
                },
            ),
        )

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Issuing, with these parameters only."""
        wanted = _own(scope)
        return {
            self._path(scope, naming): {
                "capabilities": ["update"],
                "allowed_parameters": {
                    "cert_type": ["user"],
                    "key_type": [_KEY],
                    "ttl": [],
                    "valid_principals": [_principals(wanted)],
                },
            }
        }

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A certificate that ends `ttl` from now; it cannot be renewed."""
        return Ask(
            path=self._path(scope, naming),
            body={
                "cert_type": "user",
                "key_type": _KEY,
                "ttl": f"{int(ttl.total_seconds())}s",
                "valid_principals": _principals(_own(scope)),
            },
        )

    def receive(self, scope: Scope, response: Response) -> Credential:
        """Key and certificate in OpenSSH's forms, read again first; the principal is the serial that sshd logs."""
        key, signed = response.data.get("private_key"), response.data.get("signed_key")
        if not isinstance(key, Secret) or not isinstance(signed, Secret):
            raise ValueError("the certificate authority answered without a key or a certificate")  # noqa: TRY004 # the port's word for a bad answer
        certificate = load_ssh_public_identity(signed.reveal().strip().encode())
        if not isinstance(certificate, SSHCertificate) or not _says(certificate, _own(scope)):
            raise ValueError("the certificate says something else than its scope")
        lives = certificate.valid_before - certificate.valid_after - _NOT_BEFORE
        return Credential(
            lease=response.lease,
            lease_ttl=timedelta(seconds=lives),
            principal=str(certificate.serial),
            fields={"private_key": key, "certificate": signed, "principals": Secret(_principals(_own(scope)))},
        )

    def target(self, scope: Scope) -> Target:
        """Servers that trust the authority: nobody knows them all, and none can be asked."""
        del scope  # all scopes share one mount
        return Target(kind="ssh", name=self.word)

    def reach(self, scope: Scope) -> Sequence[str]:
        """One sentence."""
        wanted = _own(scope)
        what = "log in" if wanted.command is None else f"run {wanted.command}"
        where = "any server that trusts this authority"
        networks = ", ".join(sorted(str(network) for network in wanted.source_addresses))
        besides = f", with {', '.join(sorted(wanted.extensions))}" if wanted.extensions else ""
        accounts = _principals(wanted).replace(",", ", ")
        return [f"may {what} as {accounts} at {where}{f', coming from {networks}' if networks else ''}{besides}"]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{naming.layout.mounts[self.word]}/issue/{naming.scope(scope.name)}"


_CLOSED: JsonObject = {
    "key_type": "ca",
    "allow_user_certificates": True,
    "allow_host_certificates": False,
    "allow_bare_domains": False,
    "allow_subdomains": False,
    "allow_empty_principals": False,
    "allow_user_key_ids": False,
    "allow_commas_in_identity_templates": False,
    "allow_wildcards_in_identity_templates": False,
    "allowed_critical_options": _NONE,
    "allowed_extensions": _NONE,
    "allowed_domains": "",
    "allowed_domains_template": False,
    "allowed_users_template": False,
    "allowed_user_key_lengths": {},
    "default_user": "",
    "default_user_template": False,
    "default_extensions_template": False,
    "algorithm_signer": "default",
    "issuer_ref": "default",
    "key_id_format": "{{role_name}}-{{public_key_hash}}",  # what sshd logs: the entitlement, and nobody's words
    "not_before_duration": _NOT_BEFORE,
}


def _own(scope: Scope) -> SshScope:
    return cast("SshScope", scope)


def _principals(scope: SshScope) -> str:
    return ",".join(sorted(scope.principals))


def _says(certificate: SSHCertificate, scope: SshScope) -> bool:
    return (
        certificate.type is SSHCertificateType.USER
        and sorted(certificate.valid_principals) == [name.encode() for name in sorted(scope.principals)]
        and certificate.critical_options == {name.encode(): value.encode() for name, value in scope.critical.items()}
        and certificate.extensions == {name.encode(): b"" for name in scope.extensions}
        and re.fullmatch(rb"[a-z0-9-]+", certificate.key_id) is not None
    )


ENGINE = SshEngine()
