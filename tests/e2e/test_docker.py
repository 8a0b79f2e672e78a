"""`docker-compose.yml` brought up on a real engine, service by service as the file says, and one grant through it.

Without an engine the one test that is left checks that every service can be put into the engine's words at all.
"""

import gc
import re
import secrets
import time
import warnings
from collections.abc import Generator, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import docker
import psycopg
import pytest
import yaml
from docker.errors import DockerException
from docker.models import containers
from docker.types import EndpointConfig, Ulimit
from psycopg.conninfo import make_conninfo

from controlplane.dev import loopback
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold

Sdk = Any
"""An object of the docker SDK: what its types say of them is partial."""
ROOT: Final = Path(__file__).parents[2]
API_VERSION: Final = "1.44"
PATIENCE: Final = 300
AGENT: Final = "repo:acme/support-agent:ref:refs/heads/main"


@cache
def services() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


def nanoseconds(text: str) -> int:
    return int(text.removesuffix("s")) * 1_000_000_000


def health(wanted: dict[str, Any]) -> dict[str, Any]:
    if wanted.get("disable"):
        return {"test": ["NONE"]}
    spans = {key: nanoseconds(value) for key, value in wanted.items() if key not in {"test", "retries"}}
    return {"test": wanted["test"], "retries": wanted["retries"], **spans}


def volumes(project: str, wanted: list[str]) -> list[str]:
    """Binds of the engine: our files by absolute path, named volumes with the project before their name."""
    named = (volume if volume.startswith(".") else f"{project}_{volume}" for volume in wanted)
    return [f"{ROOT}/{volume.removeprefix('./')}" if volume.startswith(".") else volume for volume in named]


def arguments(project: str, name: str) -> dict[str, Any]:
    """One service as what `containers.create` takes. A key that is not understood here fails the test."""
    service = dict(services()[name])
    for known in ("profiles", "build", "depends_on", "restart", "networks", "logging"):
        service.pop(known, None)  # said by the order of starting, or of no meaning to a test
    made: dict[str, Any] = {"name": f"{project}_{name}", "labels": {"shorthold.test": project}}
    made["healthcheck"] = health(service.pop("healthcheck"))
    made["volumes"] = volumes(project, service.pop("volumes", []))
    # A free port of the engine's choice instead of the one that the file names.
    made["ports"] = {f"{port.rpartition(':')[2]}/tcp": ("127.0.0.1", None) for port in service.pop("ports", [])}
    made["tmpfs"] = dict(mount.split(":", 1) for mount in service.pop("tmpfs", []))
    made["ulimits"] = [
        Ulimit(name=limit, soft=value, hard=value) for limit, value in service.pop("ulimits", {}).items()
    ]
    if "network_mode" not in service:
        aliases = [name, *services()[name].get("networks", {}).get("default", {}).get("aliases", [])]
        made["network"] = project
        made["networking_config"] = {project: EndpointConfig(API_VERSION, aliases=aliases)}
    taken_as_they_are = {
        "image",
        "user",
        "command",
        "entrypoint",
        "environment",
        "read_only",
        "cap_drop",
        "security_opt",
        "pids_limit",
        "group_add",
        "network_mode",
        "shm_size",
    }
    assert service.keys() <= taken_as_they_are, f"{name}: {service.keys() - taken_as_they_are}"
    return made | service


@pytest.mark.parametrize("name", services())
def test_s07_every_service_reaches_the_engine_hardened(name: str) -> None:
    asked = {**arguments("test", name), "version": API_VERSION}
    sent: dict[str, Any] = cast("Sdk", containers)._create_container_args(asked)  # what create() itself calls
    host = dict[str, Any](sent["host_config"])
    assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not {"Privileged", "CapAdd", "Devices"} & host.keys()
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", sent["user"])
    for bindings in host.get("PortBindings", {}).values():
        assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]
    assert all(not bind.startswith("/") or bind.endswith(":ro") for bind in host.get("Binds", []))


@pytest.fixture(scope="module")
def engine() -> Generator[Sdk]:
    client, why = connected()
    if client is None:
        pytest.skip(f"no container engine answers here: {why}")
    yield client
    client.close()


def connected() -> tuple[Sdk | None, str]:
    """The engine that the environment names, or why there is none."""
    try:
        client: Sdk = docker.from_env(timeout=PATIENCE)
        client.ping()
    except DockerException as error:
        why = str(error)[:120]
    else:
        return client, ""
    with warnings.catch_warnings():  # the SDK forgets to close the socket on which nobody answered
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return None, why


@pytest.fixture(scope="module")
def image(engine: Sdk) -> str:
    built, _ = engine.images.build(path=str(ROOT), tag="shorthold:local", rm=True, forcerm=True)
    assert built.id is not None
    return built.id


class Project:
    """The services of one profile on the engine, under names of their own; gone with volumes when the block ends."""

    def __init__(self, engine: Sdk, profile: str) -> None:
        self.engine = engine
        self.name = f"shorthold-test-{secrets.token_hex(4)}"
        self.profile = profile
        self.containers: dict[str, Sdk] = {}

    def up(self) -> None:
        self.engine.networks.create(self.name, driver="bridge", labels={"shorthold.test": self.name})
        self.start("control-plane")
        self.wait("control-plane", "service_healthy")

    def start(self, name: str) -> None:
        """Start a service after those that it depends on, as the file says."""
        if name in self.containers:
            return
        for dependency, how in services()[name].get("depends_on", {}).items():
            if services()[dependency].get("profiles", [self.profile]) == [self.profile]:
                self.start(dependency)
                self.wait(dependency, how["condition"])
        asked = arguments(self.name, name)
        if asked["image"] != "shorthold:local":
            self.engine.images.pull(asked["image"])
        self.containers[name] = self.engine.containers.create(**asked)
        self.containers[name].start()

    def run(self, name: str, *more: str) -> str:
        """Run a one-shot to its end; its standard output."""
        asked = arguments(self.name, name)
        asked.update(name=f"{self.name}_{name}_{secrets.token_hex(2)}", command=[*asked.get("command", []), *more])
        container = self.engine.containers.create(**asked)
        try:
            container.start()
            ended = container.wait(timeout=PATIENCE)["StatusCode"]
            assert ended == 0, container.logs().decode()
            return container.logs(stdout=True, stderr=False).decode().strip()
        finally:
            container.remove(force=True)

    def wait(self, name: str, condition: str) -> None:
        container = self.containers[name]
        match condition:
            case "service_completed_successfully":
                ended = container.wait(timeout=PATIENCE)["StatusCode"]
                assert ended == 0, f"{name}: {container.logs().decode()}"
            case "service_healthy":
                deadline = time.monotonic() + PATIENCE
                while (state := self.state(name))["Health"]["Status"] != "healthy":
                    assert state["Running"], f"{name}: {container.logs().decode()}"
                    assert time.monotonic() < deadline, f"{name}: {state['Health']}"
                    time.sleep(0.2)
            case _:
                assert condition == "service_started"

    def state(self, name: str) -> dict[str, Any]:
        self.containers[name].reload()
        return self.containers[name].attrs["State"]

    def port(self, name: str) -> int:
        """The port of the host's loopback on which a service is published."""
        self.containers[name].reload()
        ((binding,),) = self.containers[name].attrs["NetworkSettings"]["Ports"].values()
        assert binding["HostIp"] == "127.0.0.1"
        return int(binding["HostPort"])

    def down(self) -> None:
        for container in self.engine.containers.list(all=True, filters={"label": f"shorthold.test={self.name}"}):
            container.remove(force=True, v=True)
        for volume in self.engine.volumes.list():
            if str(volume.name).startswith(f"{self.name}_"):
                volume.remove(force=True)
        for network in self.engine.networks.list(names=[self.name]):
            network.remove()


@pytest.fixture(scope="module", params=["vault", "openbao"])
def project(engine: Sdk, image: str, request: pytest.FixtureRequest) -> Iterator[Project]:
    assert image
    project = Project(engine, request.param)
    try:
        project.up()
        yield project
    finally:
        project.down()


@pytest.mark.timeout(1200)
def test_the_image_is_built_and_answers_for_itself(engine: Sdk, image: str) -> None:
    assert engine.containers.run(image, ["--version"], remove=True, read_only=True, network_mode="none").startswith(
        b"shorthold, version"
    )
    config = engine.images.get(image).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert not any(re.search("PASS|SECRET|TOKEN", variable) for variable in config["Env"])


@pytest.mark.timeout(1200)
def test_a_grant_through_the_containers_is_issued_used_and_proved_gone(project: Project) -> None:
    api, server = (
        f"http://127.0.0.1:{project.port('control-plane')}",
        f"http://127.0.0.1:{project.port(project.profile)}",
    )
    assert loopback.ask(project.port("control-plane"), "GET", "/healthz")[0] == 200
    assert loopback.ask(project.port("control-plane"), "GET", "/readyz")[0] == 200
    token = Secret(project.run("token", "--subject", AGENT))
    with Shorthold(api, lambda: token) as agent:
        answer = agent.request({"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"})
        fields = agent.unwrap(server, Secret(answer["wrapping_token"]))["orders"]
        login = make_conninfo(
            host="127.0.0.1",
            port=project.port("postgres"),
            dbname="orders",
            user=fields["username"].reveal(),
            password=fields["password"].reveal(),
        )
        with psycopg.connect(login) as database:
            assert database.execute("SELECT count(*) FROM sales.orders").fetchone() != (0,)
        grant = agent.finish(answer["grant"]["id"], wait="30s")["grant"]
        assert (grant["state"], grant["receipt"]["ended"][0]["verified"]) == ("revoked", True)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(login)


@pytest.mark.timeout(1200)
def test_a_server_that_was_restarted_is_sealed_until_the_next_up_opens_it(project: Project) -> None:
    project.containers[project.profile].restart()
    project.run("setup")
    project.wait(project.profile, "service_healthy")
    assert loopback.ask(project.port(project.profile), "GET", "/v1/sys/seal-status")[1]["sealed"] is False


@pytest.mark.timeout(1200)
def test_s07_no_process_in_a_container_is_root_and_no_log_holds_a_key(project: Project) -> None:
    for name, container in project.containers.items():
        if project.state(name)["Running"]:
            titles, processes = (container.top(ps_args="-eo uid,pid,comm")[key] for key in ("Titles", "Processes"))
            assert all(process[titles.index("UID")] not in {"0", "root"} for process in processes), name
        logs = container.logs().decode(errors="replace")
        assert not re.search(r"PRIVATE KEY|hvs\.|\bs\.[A-Za-z0-9]{24}", logs), name
