"""What somebody else's policy opens, read as Vault reads it."""

import json

import pytest

from controlplane.sync.acl import opens, rules

READ = frozenset({"read", "update", "create"})
OURS = "database/creds/sh-"


def opened(text: str, prefix: str = OURS) -> frozenset[str]:
    found = rules(text)
    assert found is not None
    return opens(found, prefix, READ)


@pytest.mark.parametrize(
    "path",
    [
        "database/creds/sh-orders-read-0a1b2c3d-orders",
        "database/creds/sh-*",
        "database/creds/*",
        "database/*",
        "database/creds/+",
        "+/creds/sh-orders-read-0a1b2c3d-orders",
        "+/+/+",
        "*",
        "data*",
        "database/creds/s*",
        "database/creds/{{identity.entity.name}}",
        "/database/creds/sh-x",
    ],
)
def test_a_path_that_meets_ours_is_found_in_hcl_and_in_json(path: str) -> None:
    hcl = f'# who\npath "{path}" {{\n  capabilities = ["read", "list"] // why\n}}\n'
    assert opened(hcl) == {"read"}
    assert opened(json.dumps({"path": {path: {"capabilities": ["read"]}}})) == {"read"}
    assert opened(json.dumps({"path": [{path: {"policy": "write"}}]})) == {"read", "update", "create"}


@pytest.mark.parametrize(
    "path",
    [
        "database/creds/app",
        "database/creds/app-*",
        "kv/*",
        "database/config/*",
        "+/config/+",
        "databas",
        "database/creds",
    ],
)
def test_a_path_beside_ours_is_not(path: str) -> None:
    assert opened(f'path "{path}" {{ capabilities = ["read"] }}') == set()


def test_a_deny_over_all_of_ours_takes_back_what_is_less_specific_and_only_that() -> None:
    wide = 'path "database/*" { capabilities = ["read"] }\n'
    assert opened(wide + 'path "database/creds/sh-*" { capabilities = ["deny"] }') == set()
    assert opened(wide + 'path "database/creds/sh-orders*" { capabilities = ["deny"] }') == {"read"}
    exact = 'path "database/creds/sh-orders-read-0a1b2c3d-orders" { capabilities = ["read"] }\n'
    assert opened(exact + 'path "database/creds/sh-*" { capabilities = ["deny"] }') == {"read"}


def test_what_else_stands_in_a_policy_is_no_obstacle() -> None:
    text = """
      name = "theirs"   /* a
      comment */
      path "database/creds/sh-*" {
        capabilities = ["read",]
        allowed_parameters = { "*" = [] "ttl" = ["1h", "2h"] }
        min_wrapping_ttl = "1s"
      }
      path = { "kv/x" = { policy = "read" } }
    """
    found = rules(text)
    assert found == {"database/creds/sh-*": {"read"}, "kv/x": {"read", "list"}}


@pytest.mark.parametrize(
    "text", ['path "x" {', "path = <<EOT", '"', "}", 'path "x" { capabilities = "read" }', "[" * 5000]
)
def test_what_cannot_be_understood_is_nothing_that_is_known(text: str) -> None:
    assert rules(text) is None


def test_an_empty_policy_opens_nothing() -> None:
    assert rules("") == {}
    assert rules("{}") == {}
