"""AWS sessions: temporary keys of one IAM role, cut down to named actions. Vault has this engine; OpenBao does not."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, cast

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator
from typing_extensions import override

from controlplane.model.canonical import JsonObject, JsonValue, canonical
from controlplane.model.entitlement import Revocability, Scope, distinct
from controlplane.model.excess import excess
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret
from controlplane.model.wording import explained

EXAMPLE = """\
name: reports
engine: aws
role: arn:aws:iam::123456789012:role/shorthold-reports
allow:
  - s3:GetObject on arn:aws:s3:::acme-reports/daily/*
"""

_SHAPE = re.compile(
    r"(?P<action>[a-z][a-z0-9-]{1,31}:[A-Z][A-Za-z0-9]{1,63})"
    r" on (?P<resource>arn:aws(?:-[a-z]+)*:[a-z0-9-]+:[a-z0-9-]*:(?:[0-9]{12})?:[A-Za-z0-9_.:/=+@-]{1,300}(?:/\*)?)",
    re.ASCII,
)
_ROLE = explained(
    r"^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/[A-Za-z0-9_+=.@/-]{1,128}$", "as in arn:aws:iam::123456789012:role/name"
)
_POWERS = ("iam", "sts", "organizations", "sso", "identitystore")
_SHORTEST = timedelta(minutes=15)
"""A session lives no shorter. Source: AWS docs, STS AssumeRole, DurationSeconds."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Allowance:
    """One action on one resource, or on everything below one path of it."""

    action: str
    resource: str

    def __str__(self) -> str:
        """The one spelling of it."""
        return f"{self.action} on {self.resource}"


def parse(text: str) -> Allowance:
    """The allowance that `text` says.

    Raises: ValueError: with what to write instead.
    """
    shape = _SHAPE.fullmatch(re.sub(r" +", " ", text.strip(" ")))
    if shape is None:
        raise ValueError(
            "write it as `s3:GetObject on arn:aws:s3:::bucket/path/*`: one action, and * only for all below a path"
        )
    if {".", ".."} & set(shape["resource"].split("/")):
        raise ValueError("no part of a path is . or ..: S3 takes them as names, and readers do not")
    if shape["action"].partition(":")[0] in _POWERS:
        raise excess(
            "rights", f"{shape['action']} is a power over rights: with it the session could make itself others"
        )
    return Allowance(action=shape["action"], resource=shape["resource"])


AllowanceText = Annotated[
    str,
    AfterValidator(lambda text: str(parse(text))),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^ *[a-z0-9-]+:[A-Za-z0-9]+ +on +arn:\S+ *$",
            "examples": ["s3:GetObject on arn:aws:s3:::acme-reports/daily/*"],
        }
    ),
]


class AwsScope(Scope):
    """A session of one IAM role; of what that role may, only what is named here is left."""

    role: Annotated[str, Field(pattern=_ROLE, description="The IAM role whose session it is.")]
    allow: tuple[AllowanceText, ...] = Field(
        min_length=1, max_length=24, description="What is left of its power: `service:Action on arn:…`."
    )

    @field_validator("allow")
    @classmethod
    def _distinct(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(allow, "something is allowed twice")

    @property
    def parsed(self) -> tuple[Allowance, ...]:
        """The allowances as values, in one order whatever the order of the lines was."""
        return tuple(sorted(parse(text) for text in self.allow))

    @property
    @override
    def own_clock(self) -> bool:
        """AWS ends the session."""
        return True

    @override
    def doubts(self) -> Iterator[str]:
        """Whole buckets."""
        for each in self.parsed:
            if each.resource.endswith("/*") and each.resource.count("/") == 1:
                yield f"{each} is all that there is in it: name a path below"


@dataclass(frozen=True, slots=True)
class AwsEngine:
    """Source: Vault docs, api-docs/secret/aws; AWS docs, "Session policies"."""

    word: str = "aws"
    scope_model: type[Scope] = AwsScope
    revocability: Revocability = Revocability.EXPIRING
    example: str = EXAMPLE
    unasked: str = "AWS takes no session back before its end"
    mounting: JsonObject = field(default_factory=lambda: {"type": "aws"})

    def places(self, mount: str) -> Places:
        """Roles at `roles`, leases at `sts`."""
        return Places(roles=f"{mount}/roles", leases=f"{mount}/sts", holds=f"{mount}/sts")

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """One role; its policy document is a session policy, which can only take away."""
        wanted = _own(scope)
        statements: list[JsonValue] = [
            {"Effect": "Allow", "Action": [one.action], "Resource": [one.resource]} for one in wanted.parsed
        ]
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{naming.layout.mounts[self.word]}/roles/{naming.scope(scope.name)}",
                entitlement=naming.entitlement,
                data={
                    "credential_type": "assumed_role",
                    "role_arns": [wanted.role],
                    "policy_document": canonical({"Version": "2012-10-17", "Statement": statements}).decode(),
                    "policy_arns": [],
                    "iam_groups": [],
                    "iam_tags": {},
                    "user_path": "",
                    "permissions_boundary_arn": "",
                    "default_sts_ttl": int(max(default, _SHORTEST).total_seconds()),
                    "max_sts_ttl": int(max(maximum, _SHORTEST).total_seconds()),
                },
            ),
        )

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Assuming this role."""
        parameters: JsonObject = {"role_arn": [_own(scope).role], "ttl": []}
        return {self._path(scope, naming): {"capabilities": ["update"], "allowed_parameters": dict(parameters)}}

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A session that ends `ttl` from now, or after fifteen minutes."""
        seconds = int(max(ttl, _SHORTEST).total_seconds())
        return Ask(path=self._path(scope, naming), body={"role_arn": _own(scope).role, "ttl": f"{seconds}s"})

    def receive(self, scope: Scope, response: Response) -> Credential:
        """The three parts of a session's key; the principal is the access key's id, as CloudTrail shows it."""
        del scope  # the answer looks the same for every scope
        key, secret = response.data.get("access_key"), response.data.get("secret_key")
        # Newer servers call it session_token and keep the old name beside it.
        token = response.data.get("security_token") or response.data.get("session_token")
        if not isinstance(key, Secret) or not isinstance(secret, Secret) or not isinstance(token, Secret):
            raise ValueError("AWS' engine answered without a session's key")  # noqa: TRY004 # the port's word for a bad answer
        return Credential(
            lease=response.lease,
            lease_ttl=response.lease_ttl,
            renewable=False,
            principal=key.reveal(),
            fields={"access_key": key, "secret_key": secret, "session_token": token},
        )

    def target(self, scope: Scope) -> Target:
        """The account that the role belongs to."""
        return Target(kind="aws", name=_own(scope).role)

    def reach(self, scope: Scope) -> Sequence[str]:
        """A sentence for each allowance."""
        wanted = _own(scope)
        return [f"may {one} as far as {wanted.role} may" for one in wanted.parsed]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{naming.layout.mounts[self.word]}/sts/{naming.scope(scope.name)}"


def _own(scope: Scope) -> AwsScope:
    return cast("AwsScope", scope)


ENGINE = AwsEngine()
