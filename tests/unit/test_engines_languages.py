"""What scopes may say is a small language for each engine: read, spelt in one way, and never more than it says."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from controlplane.engines import aws, engines, kubernetes, ldap, rabbitmq, scope_models
from controlplane.model.entitlement import Scope
from controlplane.model.grant import Revision
from controlplane.model.plan import Layout, Naming

NAMING = Naming(
    layout=Layout(mounts={w: w for w in engines()}), entitlement="an-entitlement", revision=Revision("0a1b2c3d")
)
SOUND: Mapping[str, dict[str, Any]] = {
    "ssh": {"principals": ["deploy"]},
    "rabbitmq": {"vhost": "billing", "permissions": ["read on queue invoices"]},
    "kv": {"path": "payments/gateway", "fields": ["api_key"]},
    "transit": {"key": "cards", "operations": ["decrypt"]},
    "kubernetes": {"namespace": "checkout", "rules": ["get on pods"]},
    "ldap": {"base": "ou=agents,dc=acme", "groups": ["cn=readers,dc=acme"]},
    "aws": {"role": "arn:aws:iam::123456789012:role/reports", "allow": ["s3:GetObject on arn:aws:s3:::b/*"]},
}
PIECES = (
    *(
        "*",
        "+",
        "..",
        "/",
        "//",
        "%2e",
        "{{",
        "}}",
        "{{.Password}}",
        "#",
        "?",
        "\\",
        "|",
        ".*",
        "^$",
        "(",
        ")",
        "[",
        "]",
    ),
    *("'", '"', ";", "--", "$(", "`", "&", "\n", "\r\n", "\0", "\u2028", "\u202e", ",", "=", ":", " ", "é", "\ud800"),
    *("root", "amq.", "kube-", "data/", "dn: ", "changetype: modify", "a", "x-1", "0", "0.0.0.0/0"),
)
HOSTILE = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), min_size=1, max_size=6).map("".join)


def scope(engine: str, **changes: Any) -> Scope:
    return scope_models()[engine].model_validate({"name": "it", "engine": engine, **SOUND[engine], **changes})


def compiled(engine: str, **changes: Any) -> str:
    """Everything that Vault gets of a scope, as text."""
    wanted, it = scope(engine, **changes), engines()[engine]
    roles = it.roles(wanted, NAMING, default=timedelta(minutes=5), maximum=timedelta(minutes=15))
    rules = {path: dict(rule) for path, rule in it.capabilities(wanted, NAMING).items()}
    return json.dumps([[dict(role.data) for role in roles], rules])


FIELDS: list[tuple[str, str, list[str] | None]] = [
    ("ssh", "principals", []), ("ssh", "command", None),
    ("rabbitmq", "vhost", None), ("rabbitmq", "permissions", ["read on queue {}", "{} on queue a", "read on {} a"]),
    ("kv", "path", None), ("kv", "fields", []),
    ("transit", "key", None), ("transit", "operations", []),
    ("kubernetes", "namespace", None),
    ("kubernetes", "rules", ["get on {}", "{} on pods", "get on pods named {}", "get on pods.{}"]),
    ("ldap", "base", None), ("ldap", "groups", ["cn={},dc=acme", "{}"]),
    ("aws", "role", None), ("aws", "allow", ["s3:GetObject on arn:aws:s3:::{}", "{} on arn:aws:s3:::b"]),
]  # fmt: skip
# What no value of a scope may bring into a role, a policy or a path.
FOREIGN = re.compile(r"[\x00-\x1f\x7f'`;&?#%\u2028\u202e]|\{\{(?!\.(Username|Password)\}\})")


@pytest.mark.parametrize(("engine", "field", "shapes"), FIELDS, ids=lambda part: part if isinstance(part, str) else "")
@given(hostile=HOSTILE)
def test_nothing_hostile_gets_into_a_role_a_policy_or_a_path(
    engine: str, field: str, shapes: list[str] | None, hostile: str
) -> None:
    """Y11, Y15, A14."""
    for shape in shapes or ["{}"]:
        text = shape.replace("{}", hostile)
        try:
            said = compiled(engine, **{field: text if shapes is None else [text]})
        except ValidationError:
            continue
        for part in {*_texts(json.loads(said))} - {*_texts(json.loads(compiled(engine)))}:
            assert FOREIGN.search(part.replace("\n", "") if engine == "ldap" else part) is None, part
            assert ".." not in part.split("/"), part
            assert engine == "aws" or "*" not in part, part
        if engine == "ldap":
            assert said.count("dn: ") == compiled("ldap").count("dn: "), "one entry and one group, as in the sound one"


@given(
    names=st.lists(
        st.from_regex(r"[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,20}", fullmatch=True), min_size=1, max_size=5, unique=True
    ),
    other=st.text(max_size=25),
)
def test_a_pattern_of_rabbitmq_matches_the_named_queues_and_nothing_else(names: list[str], other: str) -> None:
    wanted = [name for name in names if not name.startswith("amq.")] or ["a"]
    read = scope("rabbitmq", permissions=[f"read on queue {name}" for name in wanted])
    (role,) = engines()["rabbitmq"].roles(read, NAMING, default=timedelta(minutes=5), maximum=timedelta(minutes=15))
    patterns = json.loads(str(role.data["vhosts"]))["billing"]
    for name in (*names, other):
        assert (re.fullmatch(patterns["read"], name) is not None) is (name in wanted)
        assert name == "" or re.fullmatch(patterns["write"], name) is None
        assert name == "" or re.fullmatch(patterns["configure"], name) is None


@pytest.mark.parametrize(
    ("parse", "text", "spelt"),
    [
        (rabbitmq.parse, " read  on queue  a.b ", "read on queue a.b"),
        (kubernetes.parse, "patch on  deployments.apps named x", "patch on deployments.apps named x"),
        (kubernetes.parse, "create on pods/exec", "create on pods/exec"),
        (aws.parse, "s3:GetObject  on arn:aws:s3:::b/c/*", "s3:GetObject on arn:aws:s3:::b/c/*"),
        (ldap.distinguished, "OU = agents , dc=acme", "ou=agents,dc=acme"),
    ],
)  # fmt: skip
def test_there_is_one_spelling_and_it_reads_back(parse: Callable[[str], object], text: str, spelt: str) -> None:
    assert str(parse(text)) == spelt
    assert str(parse(spelt)) == spelt


@pytest.mark.parametrize(
    ("engine", "changes", "told"),
    [
        ("ssh", {"principals": ["root"]}, "root is every account"),
        ("ssh", {"source_addresses": ["0.0.0.0/0"]}, "every address"),
        ("ssh", {"principals": ["a", "a"]}, "named twice"),
        ("rabbitmq", {"permissions": ["read on queue .*"]}, "no pattern"),
        ("rabbitmq", {"permissions": ["write on exchange amq.default"]}, "write to every queue"),
        ("rabbitmq", {"permissions": ["own on queue a"]}, "there is no own"),
        ("kv", {"path": "data/payments"}, "leave data/ out"),
        ("kv", {"path": "payments/*"}, "no pattern"),
        ("kv", {"path": "payments/../other"}, "below the mount"),
        ("kubernetes", {"rules": ["* on pods"]}, "no wildcards"),
        ("kubernetes", {"rules": ["escalate on roles.rbac.authorization.k8s.io"]}, "others' rights"),
        ("kubernetes", {"rules": ["create on rolebindings.rbac.authorization.k8s.io"]}, "make itself others"),
        ("kubernetes", {"rules": ["create on serviceaccounts/token"]}, "make itself others"),
        ("kubernetes", {"rules": ["list on pods named x"]}, "against a name"),
        ("kubernetes", {"namespace": "kube-system"}, "the cluster's own"),
        ("ldap", {"groups": ["cn=a,dc=acme", "CN=A,dc=acme"]}, "named twice"),
        ("ldap", {"base": "ou=a\nchangetype: delete"}, "distinguished name"),
        ("aws", {"allow": ["s3:* on arn:aws:s3:::b"]}, "one action"),
        ("aws", {"allow": ["s3:GetObject on *"]}, "one action"),
        ("aws", {"allow": ["sts:AssumeRole on arn:aws:iam::123456789012:role/x"]}, "power over rights"),
    ],
)  # fmt: skip
def test_what_is_too_much_is_refused_with_what_to_do_instead(engine: str, changes: dict[str, Any], told: str) -> None:
    """C6."""
    with pytest.raises(ValidationError, match=re.escape(told)):
        scope(engine, **changes)


@pytest.mark.parametrize("engine", sorted(SOUND))
def test_the_order_of_lines_changes_nothing(engine: str) -> None:
    """Y34."""
    more: dict[str, list[str]] = {
        "ssh": ["deploy", "web"], "rabbitmq": ["read on queue a", "write on exchange b"], "kv": ["a", "b"],
        "transit": ["encrypt", "decrypt"], "kubernetes": ["get on pods", "list on pods"],
        "ldap": ["cn=a,dc=acme", "cn=b,dc=acme"], "aws": ["s3:GetObject on arn:aws:s3:::b", "s3:Put on arn:aws:s3:::b"],
    }  # fmt: skip
    field = next(name for name, value in reversed(SOUND[engine].items()) if isinstance(value, list))
    assert compiled(engine, **{field: more[engine]}) == compiled(engine, **{field: more[engine][::-1]})


def _texts(value: Any) -> list[str]:  # noqa: ANN401 # any JSON
    if isinstance(value, dict):
        return [text for key, one in value.items() for text in (key, *_texts(one))]  # pyright: ignore[reportUnknownVariableType] # any JSON
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]  # pyright: ignore[reportUnknownVariableType] # any JSON
    return [value] if isinstance(value, str) else []


DOUBTFUL: list[tuple[str, dict[str, Any], str]] = [
    ("database", {"connection": "x", "privileges": ["update on table a.b"]}, "every column"),
    ("database", {"dialect": "mariadb", "connection": "x", "privileges": ["update on table a.b"]}, "every column"),
    ("database", {"dialect": "redis", "connection": "x", "privileges": ["read on keys c*"]}, "of others"),
    ("ssh", {"principals": ["deploy"], "extensions": ["permit-agent-forwarding"]}, "to others"),
    (
        "aws",
        {"role": "arn:aws:iam::123456789012:role/r", "allow": ["s3:GetObject on arn:aws:s3:::acme/*"]},
        "all that there is",
    ),
    ("kubernetes", {"namespace": "shop", "rules": ["list on secrets"]}, "every secret"),
    ("kubernetes", {"namespace": "shop", "rules": ["create on pods/exec"]}, "whatever account"),
    ("kubernetes", {"namespace": "shop", "rules": ["patch on deployments.apps named web"]}, "any account"),
]
SURE: list[tuple[str, dict[str, Any]]] = [
    ("database", {"connection": "x", "privileges": ["update (a) on table a.b", "delete on table a.b"]}),
    ("database", {"dialect": "redis", "connection": "x", "privileges": ["read on keys cart:*", "get on keys c"]}),
    ("ssh", {"principals": ["deploy"], "extensions": ["permit-pty"]}),
    ("aws", {"role": "arn:aws:iam::123456789012:role/r", "allow": ["s3:GetObject on arn:aws:s3:::acme/daily/*"]}),
    ("kubernetes", {"namespace": "shop", "rules": ["get on secrets named web", "list on pods"]}),
    ("rabbitmq", {"permissions": ["read on queue x"]}),
]


@pytest.mark.parametrize(("word", "fields", "told"), DOUBTFUL)
def test_c6_what_opens_more_than_its_words_say_is_doubted(word: str, fields: dict[str, Any], told: str) -> None:
    scope = engines()[word].scope_model.model_validate({"name": "x", "engine": word, **fields})
    assert [told in doubt for doubt in scope.doubts()] == [True]


@pytest.mark.parametrize(("word", "fields"), SURE)
def test_what_says_what_it_opens_is_not_doubted(word: str, fields: dict[str, Any]) -> None:
    scope = engines()[word].scope_model.model_validate({"name": "x", "engine": word, **fields})
    assert list(scope.doubts()) == []
