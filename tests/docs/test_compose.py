"""`docker-compose.yml` and `Dockerfile`, checked without an engine: the schema, and what they promise (S07, S08)."""

import json
import re
import subprocess
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from controlplane.dev.compose import ISSUER_URL
from controlplane.settings import Settings, load

ROOT: Final = Path(__file__).parents[2]
OURS: Final = "shorthold:local"


@cache
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def services() -> dict[str, dict[str, Any]]:
    return compose()["services"]


def dockerfile() -> str:
    """The Dockerfile without comments, its continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    return re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")


each_service = pytest.mark.parametrize("name", services())


def one_shot(name: str) -> bool:
    """Whether a service ends by itself: somebody waits for its end, or it runs only when it is called."""
    waited_for = {
        dependency
        for service in services().values()
        for dependency, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    return name in waited_for or services()[name].get("profiles") == ["token"]


def test_the_file_is_valid_under_the_compose_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each_service
def test_s08_every_port_is_published_on_loopback_only(name: str) -> None:
    for port in services()[name].get("ports", []):
        assert isinstance(port, str)
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-[0-9]+\}:[0-9]+", port), port
    assert services()[name].get("network_mode", "bridge") in {"bridge", "none"}


@each_service
def test_s08_nothing_that_could_be_a_password_stands_in_the_file(name: str) -> None:
    environment: dict[str, str] = services()[name].get("environment", {})
    for variable, value in environment.items():
        if re.search("PASS|SECRET|TOKEN|KEY", variable):
            assert variable.endswith("_FILE"), variable
            assert value.startswith("/run/")
    assert "env_file" not in services()[name]
    text = json.dumps(services()[name])
    assert not re.search(r"://[^/\"]*:[^/\"]*@", text)  # no user:password@host
    assert not re.search(r"-dev\b|VAULT_DEV|BAO_DEV|trust", text)


@each_service
def test_s07_no_container_is_root_writes_its_image_or_can_gain_rights(name: str) -> None:
    service = services()[name]
    user, group = service["user"].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    for forbidden in ("cap_add", "privileged", "devices", "pid", "ipc", "userns_mode", "extra_hosts"):
        assert forbidden not in service


@each_service
def test_every_long_running_service_says_whether_it_is_healthy(name: str) -> None:
    health = services()[name]["healthcheck"]
    if one_shot(name):
        assert health == {"disable": True}
        assert "restart" not in services()[name]
    else:
        assert health["test"][0] == "CMD"  # no shell
        assert not re.search("pass|token|secret", json.dumps(health["test"]), re.IGNORECASE)
        assert services()[name]["restart"] == "unless-stopped"


@each_service
def test_nothing_of_the_host_is_mounted_but_configuration_and_that_read_only(name: str) -> None:
    for volume in services()[name].get("volumes", []):
        source, target, *options = volume.split(":")
        if source.startswith("."):
            assert options == ["ro"], volume
            assert source.startswith(("./vault-config/docker/", "./roles"))
            assert (ROOT / source).exists()
        else:
            assert source in compose()["volumes"], volume
        assert target.startswith("/")
        assert "docker.sock" not in volume


def volumes_of(name: str) -> dict[str, bool]:
    """The named volumes of a service, and whether it may write them."""
    split = [volume.split(":") for volume in services()[name].get("volumes", [])]
    return {parts[0]: parts[2:] != ["ro"] for parts in split if not parts[0].startswith(".")}


def test_only_who_needs_a_secret_sees_its_volume() -> None:
    seen = {volume: {name for name in services() if volume in volumes_of(name)} for volume in compose()["volumes"]}
    assert seen["operator"] == {"setup", "token"}  # the running control plane never sees an unseal key
    assert seen["database-secret"] == {"prepare", "postgres", "setup"}
    assert seen["keys"] == {"setup", "control-plane"}
    assert volumes_of("control-plane") == {"keys": False, "control-plane-data": True}
    assert all(len(names) == 1 for volume, names in seen.items() if volume.endswith(("-data", "-logs")))


def test_one_profile_or_the_other_brings_the_server_and_vault_is_the_default() -> None:
    by_profile = {name: service["profiles"] for name, service in services().items() if "profiles" in service}
    assert by_profile == {"vault": ["vault"], "openbao": ["openbao"], "token": ["token"]}
    lines = (ROOT / ".env").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == ["COMPOSE_PROFILES=vault"]
    for name, image in (("vault", "hashicorp/vault:"), ("openbao", "openbao/openbao:")):
        server = services()[name]
        assert server["image"].startswith(image)
        assert server["networks"] == {"default": {"aliases": ["vault"]}}
        assert {key: server[key] for key in ("ports", "user", "tmpfs", "read_only")} == {
            key: services()["vault"][key] for key in ("ports", "user", "tmpfs", "read_only")
        }
    for name, service in services().items():
        for dependency, how in service.get("depends_on", {}).items():
            if dependency in by_profile:
                assert how["required"] is False, f"{name} would not start without {dependency}"


@each_service
def test_every_image_names_its_version(name: str) -> None:
    image = services()[name]["image"]
    assert image == OURS or re.search(r":[0-9]+(\.[0-9]+)*$", image), image
    if image == OURS:
        assert services()[name]["build"] == "."
        assert services()[name]["user"] == "10001:10001"


def test_both_servers_are_configured_alike() -> None:
    texts = {
        name: (ROOT / "vault-config" / "docker" / f"{name}.hcl").read_text("utf-8") for name in ("vault", "openbao")
    }
    for text in texts.values():
        for line in (
            "max_request_duration",
            'storage "raft"',
            "api_addr",
            '"http://vault:8200"',
            "performance_multiplier",
        ):
            assert line in text
        assert re.search(r'max_request_duration\s*= "10s"', text)


def test_the_control_planes_configuration_is_valid_and_fits_the_compose_file(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = compose_settings(monkeypatch)
    mounts = {volume.split(":")[1] for volume in services()["control-plane"]["volumes"]}
    assert str(settings.keys.directory) in mounts
    assert str(settings.roles) in mounts
    assert settings.store.url == "sqlite:////var/lib/shorthold/shorthold.db"
    assert "/var/lib/shorthold" in mounts
    assert (settings.api.host, settings.api.port) == ("0.0.0.0", 8700)  # noqa: S104 # inside the container
    assert services()["control-plane"]["ports"][0].endswith(f":{settings.api.port}")
    assert settings.vault.max_request_duration == timedelta(seconds=10)
    assert settings.vault.broker is not None
    assert settings.vault.broker.key_file.parent == settings.keys.directory
    assert settings.vault.sync is None  # applying entitlements is not the running control plane's business
    (issuer,) = settings.issuers
    assert (issuer.name, issuer.url) == ("dev", ISSUER_URL)
    assert issuer.jwks_file is not None
    assert issuer.jwks_file.parent == settings.keys.directory
    assert settings.targets["orders"].host in services()


def compose_settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in ("BAO_ADDR", "VAULT_ADDR", "BAO_NAMESPACE", "VAULT_NAMESPACE", "BAO_CACERT", "VAULT_CACERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHORTHOLD_CONFIG", str(ROOT / "vault-config" / "docker" / "shorthold.toml"))
    return load()


def test_s07_the_image_runs_as_a_numeric_user_that_is_not_root_and_asks_for_its_health_without_secrets() -> None:
    *_, final = re.split(r"^FROM ", dockerfile(), flags=re.MULTILINE)
    assert re.findall(r"^USER (.+)$", final, re.MULTILINE) == ["10001:10001"]
    (health,) = re.findall(r"^HEALTHCHECK .*?CMD (\[.+\])$", final, re.MULTILINE)
    in_image, in_compose = json.loads(health), services()["control-plane"]["healthcheck"]["test"]
    assert in_image == in_compose[1:]
    compile(in_image[2], "healthcheck", "exec")
    assert re.findall(r"^(?:ENTRYPOINT|CMD) (.+)$", final, re.MULTILINE) == ['["shorthold"]', '["serve"]']  # no shell
    assert not re.search(r"apt-get|curl|wget|pip install", final)
    assert "SHORTHOLD_CONFIG=/etc/shorthold/shorthold.toml" in final


def test_what_goes_into_the_image_is_checked_against_hashes_and_nothing_else_is_fetched() -> None:
    text = dockerfile()
    fetching = [line for line in re.findall(r"python -m pip .*", text) if "--no-index" not in line]
    assert len(fetching) == 1
    assert "--require-hashes --requirement requirements.lock" in fetching[0]
    assert not re.search(r"^ADD |^ARG .*(TOKEN|PASS|SECRET)|--mount=type=secret", text, re.MULTILINE)


def test_only_what_the_image_needs_is_sent_to_the_engine() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line.removeprefix("!") for line in rules if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile(), re.MULTILINE)
        for source in sources.split()
    }
    assert copied == allowed
    assert all((ROOT / path).exists() for path in allowed)
