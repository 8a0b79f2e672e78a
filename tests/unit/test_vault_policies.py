"""The identities' policies: what they say, and what no name can make them say."""

import json
import shutil
from pathlib import Path

import pytest

import controlplane
from controlplane.model.errors import ConfigurationError
from controlplane.model.plan import Layout
from controlplane.vault import policies
from controlplane.vault.policies import IDENTITIES, policy_of

LAYOUT = Layout(mounts={"database": "database", "pki": "pki"})
EPOCH = "identity/entity/name/shorthold-epoch"


def paths(identity: str, layout: Layout = LAYOUT) -> dict[str, dict[str, list[str]]]:
    return json.loads(policy_of(layout, identity))["path"]


def test_no_identity_may_write_what_another_one_is_ruled_by() -> None:
    """P7."""
    for identity in IDENTITIES:
        for path, rule in paths(identity).items():
            if identity == "drift":
                continue  # it may not write at all, see below
            if path.startswith(("sys/policies/", "auth/shorthold", "database/roles", "pki/roles")):
                own = identity == "param" and path in {"database/roles/sh-p-*", "pki/roles/sh-p-*"}
                assert identity == "sync" or own or rule["capabilities"] == ["list"], f"{identity} on {path}"
            assert not path.startswith(("auth/shorthold-", "sys/mounts", "sys/auth", "database/config"))
            assert not path.startswith("identity/") or (identity, path) == ("broker", EPOCH)
            assert "root" not in rule["capabilities"]


def test_roles_of_single_grants_are_param_s_alone_and_it_has_nothing_else() -> None:
    """P7: who makes them cannot use them, and who uses them cannot make them."""
    for engine in ("database", "pki"):
        assert paths("sync")[f"{engine}/roles/sh-p-*"]["capabilities"] == ["deny"]
    folders = {f"{engine}/roles{own}" for engine in ("database", "pki") for own in ("", "/sh-p-*")}
    assert paths("param").keys() == folders | {"sys/capabilities-self"}


def test_whoever_looks_for_drift_may_only_look() -> None:
    """P7: `sudo` stands where the server asks for it to list leases and audit devices."""
    sudo = {"sys/audit", "sys/leases/lookup/database/creds/sh-*", "sys/leases/lookup/pki/issue/sh-*"}
    for path, rule in paths("drift").items():
        allowed = {"read", "list", *(["sudo"] if path in sudo else [])}
        assert set(rule["capabilities"]) <= allowed or path == "sys/capabilities-self", path
        assert not path.startswith(("database/creds", "pki/issue", "pki/sign"))


def test_of_the_entity_that_nobody_can_be_the_broker_may_write_the_metadata_only() -> None:
    """P7."""
    rule = json.loads(policy_of(LAYOUT, "broker"))["path"][EPOCH]
    assert rule == {"capabilities": ["read", "update"], "allowed_parameters": {"metadata": []}}


def test_only_the_broker_reads_a_credential_and_only_its_probers() -> None:
    reading = {
        (identity, path)
        for identity in IDENTITIES
        for path, rule in paths(identity).items()
        if "/creds/" in path and not path.startswith("sys/leases/lookup/") and rule["capabilities"] != ["deny"]
    }
    assert reading == {("broker", "database/creds/sh-prober-*")}


def test_leases_of_others_are_out_of_reach() -> None:
    for identity in ("broker", "responder"):
        for path in ("sys/leases/lookup", "sys/leases/revoke"):
            allowed = json.loads(policy_of(LAYOUT, identity))["path"][path]["allowed_parameters"]
            assert allowed["lease_id"] == ["database/creds/sh-*", "pki/issue/sh-*"]
    assert "sys/leases/renew" not in paths("responder")
    assert "auth/token/renew-accessor" not in paths("responder")


def test_a_star_stands_at_the_end_of_a_path_only() -> None:
    for identity in IDENTITIES:
        for path in paths(identity):
            assert "*" not in path[:-1]
            assert "+" not in path


def test_names_come_from_the_layout() -> None:
    layout = Layout(prefix="jit", auth_mount="tasks", mounts={"database": "db-prod", "pki": "ca"})
    assert "db-prod/creds/jit-prober-*" in paths("broker", layout)
    assert "auth/tasks/role/jit-*" in paths("sync", layout)
    assert not any("sh-" in path or "database" in path for path in paths("sync", layout))


def test_an_engine_that_is_not_used_is_left_out() -> None:
    policy = policy_of(Layout(mounts={"database": "database"}), "broker")
    assert "pki" not in policy
    assert json.loads(policy)["path"]["sys/leases/revoke"]["allowed_parameters"]["lease_id"] == ["database/creds/sh-*"]


def test_no_engine_at_all_is_refused_because_an_empty_list_allows_everything() -> None:
    with pytest.raises(ConfigurationError):
        policy_of(Layout(mounts={}), "broker")


@pytest.mark.parametrize(
    "layout",
    [
        Layout(prefix="", mounts={"database": "database"}),
        Layout(prefix="*", mounts={"database": "database"}),
        Layout(prefix="sh-", mounts={"database": "database"}),
        Layout(prefix="SH", mounts={"database": "database"}),
        Layout(prefix="verylongprefix", mounts={"database": "database"}),
        Layout(prefix="${x}", mounts={"database": "database"}),
        Layout(mounts={"database": "database/*"}),
        Layout(mounts={"database": "a/b"}),
        Layout(mounts={"database": "+"}),
        Layout(mounts={"database": 'x": {"capabilities": ["sudo"]}, "y'}),
        Layout(mounts={"database": "sys"}),
        Layout(mounts={"database": "auth"}),
        Layout(mounts={"database": "one", "pki": "one"}),
        Layout(auth_mount="token/../x", mounts={"database": "database"}),
        Layout(prefix="jit", auth_mount="jit", mounts={"database": "database"}),
        Layout(prefix="jit", auth_mount="jit-tasks", mounts={"database": "database"}),
    ],
    ids=lambda layout: f"{layout.prefix} {layout.auth_mount} {dict(layout.mounts)}",
)
def test_a_name_that_could_widen_a_policy_is_refused(layout: Layout) -> None:
    """Y11."""
    with pytest.raises(ConfigurationError):
        [policy_of(layout, identity) for identity in IDENTITIES]


def test_they_are_found_in_a_wheel_as_in_a_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_clone = policy_of(LAYOUT, "broker")
    package = tmp_path / "controlplane"
    shutil.copytree(Path(controlplane.__file__).parents[1] / "vault-config", package / "shipped" / "vault-config")
    monkeypatch.setattr(controlplane, "__file__", str(package / "__init__.py"))
    assert policies._directory() == package / "shipped" / "vault-config" / "policies"  # pyright: ignore[reportPrivateUsage] # which of the two it is
    assert policy_of(LAYOUT, "broker") == in_clone


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlplane, "__file__", str(tmp_path / "controlplane" / "__init__.py"))
    folder = tmp_path / "vault-config" / "policies"
    with pytest.raises(ConfigurationError, match=r"broker\.json"):
        policy_of(LAYOUT, "broker")
    folder.mkdir(parents=True)
    for content in ("", "[]", "{}", '{"path": []}', '{"path": {"${unknown}/x": {}}}', '{"path": {"a*b": {}}}'):
        (folder / "broker.json").write_text(content)
        with pytest.raises(ConfigurationError):
            policy_of(LAYOUT, "broker")
