"""Kubernetes accounts: one account, role and token per credential, in one namespace, with named rules."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, cast

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator
from typing_extensions import override

from controlplane.model.canonical import JsonObject
from controlplane.model.entitlement import Revocability, Scope, distinct
from controlplane.model.excess import excess
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, ObjectKind, Places, VaultObject
from controlplane.model.secret import Secret
from controlplane.model.wording import explained

EXAMPLE = """\
name: rollout
engine: kubernetes
namespace: checkout
rules:
  - get on deployments.apps named checkout
  - patch on deployments.apps named checkout
  - list on pods
"""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAMESPACE = explained(
    rf"^{_LABEL}$",
    "small letters, digits and - only, no - at an end, at most 63",
)
_SHAPE = re.compile(
    rf"(?P<verb>[a-z]+) on (?P<resource>[a-z]+(?:/[a-z]+)?)(?:\.(?P<group>{_LABEL}(?:\.{_LABEL})*))?"
    rf"(?: named (?P<name>{_LABEL}(?:\.{_LABEL})*))?",
    re.ASCII,
)
_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")
_UNNAMED = ("create", "list", "watch")  # Kubernetes cannot hold these against a name, and would ignore it
_RUNNING = ("cronjobs", "daemonsets", "deployments", "jobs", "pods", "replicasets", "statefulsets")
_SHORTEST = timedelta(minutes=10)
"""A token of Kubernetes lives no shorter. Source: Kubernetes docs, TokenRequestSpec.expirationSeconds."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Rule:
    """One verb on one kind of resource, or on one resource of it; `group` is "" for the core group."""

    group: str
    resource: str
    name: str
    verb: str

    def __str__(self) -> str:
        """The one spelling of it."""
        group = f".{self.group}" if self.group else ""
        return f"{self.verb} on {self.resource}{group}{f' named {self.name}' if self.name else ''}"


def parse(text: str) -> Rule:
    """The rule that `text` says.

    Raises: ValueError: with what to write instead.
    """
    shape = _SHAPE.fullmatch(re.sub(r" +", " ", text.strip(" ")))
    if shape is None:
        if "*" in text:
            raise excess("wildcard", "a rule has no wildcards: name each resource")
        raise ValueError("write it as `get on pods` or `patch on deployments.apps named checkout`")
    verb, resource, group, name = shape["verb"], shape["resource"], shape["group"] or "", shape["name"] or ""
    if verb not in _VERBS:
        raise ValueError(
            f"a rule has one of the verbs {', '.join(_VERBS)}: {verb} is none, or a power over others' rights"
        )
    if group == "rbac.authorization.k8s.io" or resource == "serviceaccounts/token":
        raise excess("rights", "rules about rights and tokens would let the credential make itself others")
    if name and verb in _UNNAMED:
        raise ValueError(f"Kubernetes cannot hold {verb} against a name: leave `named` out, if that is meant")
    return Rule(verb=verb, resource=resource, group=group, name=name)


RuleText = Annotated[
    str,
    AfterValidator(lambda text: str(parse(text))),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": explained(
                r"^ *[a-z]+ +on +[a-z0-9./-]+( +named +[a-z0-9.-]+)? *$",
                "as in `get on pods` or `get on configmaps named web`",
            ),
            "examples": ["get on pods", "patch on deployments.apps named checkout"],
        }
    ),
]


class KubernetesScope(Scope):
    """Rules in one namespace of the cluster behind Vault's mount; never in the whole cluster."""

    namespace: Annotated[str, Field(pattern=_NAMESPACE, description="The only one that it reaches.")]
    rules: tuple[RuleText, ...] = Field(min_length=1, max_length=64, description="What the account may do, one a line.")

    @field_validator("namespace")
    @classmethod
    def _not_the_system_s(cls, namespace: str) -> str:
        if namespace.startswith("kube-"):
            raise excess("system", "namespaces with kube- are the cluster's own: whoever rules them rules the cluster")
        return namespace

    @field_validator("rules")
    @classmethod
    def _distinct(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(rules, "a rule is named twice")

    @property
    def parsed(self) -> tuple[Rule, ...]:
        """The rules as values, in one order whatever the order of the lines was."""
        return tuple(sorted(parse(text) for text in self.rules))

    @property
    @override
    def own_clock(self) -> bool:
        """The token carries its end."""
        return True

    @override
    def doubts(self) -> Iterator[str]:
        """Rules by which the account gets what others have."""
        for each in self.parsed:
            if each.resource == "secrets" and not each.name and each.verb in {"get", "list", "watch"}:
                yield f"{each} reads every secret of the namespace: name the one that the task needs"
            if each.resource in {"pods/exec", "pods/attach", "pods/ephemeralcontainers"}:
                yield f"{each} acts with whatever account a pod has: let the task do without"
            if each.verb in {"create", "patch", "update"} and each.resource in _RUNNING:
                yield f"{each} can run anything as any account of the namespace: keep such accounts out of it"


@dataclass(frozen=True, slots=True)
class KubernetesEngine:
    """Source: OpenBao docs, api/secret/kubernetes; Kubernetes docs, "Using RBAC Authorization"."""

    word: str = "kubernetes"
    scope_model: type[Scope] = KubernetesScope
    revocability: Revocability = Revocability.RECALLABLE
    example: str = EXAMPLE
    unasked: str = "nobody of ours may ask the cluster which accounts it has"
    mounting: JsonObject = field(default_factory=lambda: {"type": "kubernetes"})

    def places(self, mount: str) -> Places:
        """Roles at `roles`, leases at `creds`."""
        return Places(roles=f"{mount}/roles", leases=f"{mount}/creds", holds=f"{mount}/creds")

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """One role, by which a role of Kubernetes is made for each credential."""
        wanted, name = _own(scope), naming.scope(scope.name)
        return (
            VaultObject(
                kind=ObjectKind.SECRET_ROLE,
                path=f"{naming.layout.mounts[self.word]}/roles/{name}",
                entitlement=naming.entitlement,
                data={
                    "name": name,
                    "allowed_kubernetes_namespaces": [wanted.namespace],
                    "allowed_kubernetes_namespace_selector": "",
                    "kubernetes_role_type": "Role",
                    "kubernetes_role_name": "",
                    "service_account_name": "",
                    "generated_role_rules": json.dumps({"rules": [_rule(rule) for rule in wanted.parsed]}),
                    # Nothing of a token's display name: a subject chosen by others must not become a name there.
                    "name_template": '{{ printf "%s-%s" (.RoleName | truncate 40) (random 20) | lowercase }}',
                    "extra_annotations": {},
                    "extra_labels": {"app.kubernetes.io/managed-by": "shorthold"},
                    "token_default_audiences": [],
                    "token_default_ttl": int(max(default, _SHORTEST).total_seconds()),
                    "token_max_ttl": int(max(maximum, _SHORTEST).total_seconds()),
                },
            ),
        )

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Making one, in this namespace, bound to nothing but it."""
        parameters: JsonObject = {
            "cluster_role_binding": [False],
            "kubernetes_namespace": [_own(scope).namespace],
            "ttl": [],
        }
        return {self._path(scope, naming): {"capabilities": ["update"], "allowed_parameters": dict(parameters)}}

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A token that ends `ttl` from now, or after ten minutes; its account is gone when the grant ends."""
        return Ask(
            path=self._path(scope, naming),
            body={
                "cluster_role_binding": False,
                "kubernetes_namespace": _own(scope).namespace,
                "ttl": f"{int(max(ttl, _SHORTEST).total_seconds())}s",
            },
        )

    def receive(self, scope: Scope, response: Response) -> Credential:
        """The token; the principal is the account's full name."""
        names = ("service_account_namespace", "service_account_name", "service_account_token")
        namespace, account, token = (response.data.get(name) for name in names)
        if not isinstance(namespace, Secret) or not isinstance(account, Secret) or not isinstance(token, Secret):
            raise ValueError("Kubernetes' engine answered without an account or a token")  # noqa: TRY004 # the port's word for a bad answer
        if namespace.reveal() != _own(scope).namespace:
            raise ValueError("Kubernetes' engine made the account in another namespace")
        return Credential(
            lease=response.lease,
            lease_ttl=None,  # Vault cannot renew it, and removes the account with the task token
            principal=f"system:serviceaccount:{namespace.reveal()}:{account.reveal()}",
            fields={"token": token, "namespace": namespace},
        )

    def target(self, scope: Scope) -> Target:
        """The cluster behind the mount."""
        del scope  # all scopes share one mount
        return Target(kind="kubernetes", name=self.word)

    def reach(self, scope: Scope) -> Sequence[str]:
        """A sentence for each rule."""
        wanted = _own(scope)
        return [f"may {str(rule).replace(' on ', ' ', 1)} in namespace {wanted.namespace}" for rule in wanted.parsed]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{naming.layout.mounts[self.word]}/creds/{naming.scope(scope.name)}"


def _own(scope: Scope) -> KubernetesScope:
    return cast("KubernetesScope", scope)


def _rule(rule: Rule) -> dict[str, list[str]]:
    named = {"resourceNames": [rule.name]} if rule.name else {}
    return {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": [rule.verb], **named}


ENGINE = KubernetesEngine()
