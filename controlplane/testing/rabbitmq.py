"""A real RabbitMQ for tests: Debian's program, in a directory of its own, on loopback, with its management API."""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import urllib3

from controlplane.dev import loopback
from controlplane.dev.process import Process

PACKAGE: Final = "rabbitmq-server"
TOOLS: Final = "amqp-tools"
_SERVER: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_MANAGER: Final = "manager"
_READY: Final = timedelta(seconds=90)


def program() -> str | None:
    """The server, None where it is not installed."""
    return str(_SERVER) if _SERVER.exists() and shutil.which("epmd") else None


def tools() -> str | None:
    """A client of AMQP, None where it is not installed."""
    return shutil.which("amqp-get")


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQ:
    """One server. `manager` may do everything on it, and is whom Vault uses."""

    directory: Path
    port: int = field(default_factory=lambda: loopback.free_port(but=set()))
    api_port: int = field(default_factory=lambda: loopback.free_port(but=set()))
    names_port: int = field(default_factory=lambda: loopback.free_port(but=set()))
    nodes_port: int = field(default_factory=lambda: loopback.free_port(but=set()))
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def process(self) -> Process:
        """The server."""
        return Process(name="rabbitmq", directory=self.directory)

    @property
    def connection(self) -> dict[str, Any]:
        """What Vault's mount is configured with."""
        uri = f"http://{loopback.HOST}:{self.api_port}"
        return {"connection_uri": uri, "username": _MANAGER, "password": self.password, "verify_connection": True}

    def start(self) -> None:
        """Start it and wait until it answers: some ten seconds."""
        settings = {
            "listeners.tcp.1": f"{loopback.HOST}:{self.port}",
            "management.tcp.ip": loopback.HOST,
            "management.tcp.port": self.api_port,
            "default_user": _MANAGER,
            "default_pass": self.password,
            "collect_statistics_interval": 200,
        }
        text = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.directory / "rabbitmq.conf").write_text(text, encoding="utf-8")
        (self.directory / "rabbitmq.conf").chmod(0o600)
        (self.directory / "enabled_plugins").write_text("[rabbitmq_management].\n", encoding="utf-8")
        places = {"ERL_EPMD_PORT": str(self.names_port), "ERL_EPMD_ADDRESS": loopback.HOST}
        epmd = [shutil.which("epmd") or "epmd", "-port", str(self.names_port), "-address", loopback.HOST]
        # One of its own, or the server starts one that outlives it.
        self._names.directory.mkdir(exist_ok=True)
        self._names.start(epmd, cwd=self.directory, environment={})
        self._names.wait(lambda: not loopback.is_free(self.names_port), _READY)
        environment = {
            **places,
            "HOME": str(self.directory),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(self.nodes_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
        }
        self.process.start([str(_SERVER)], cwd=self.directory, environment=environment)
        self.process.wait(lambda: self._status("whoami") == 200, _READY)  # noqa: PLR2004 # OK

    def stop(self) -> None:
        """Stop it."""
        pid = self.process.pid
        if pid is not None:
            os.killpg(pid, signal.SIGKILL)  # a script that waits for the server, which would outlive it
        self.process.stop()
        self._names.stop()

    def make(self, kind: str, vhost: str, *names: str) -> None:
        """Make queues or exchanges (`kind` is `queues` or `exchanges`), and their virtual host."""
        self.api("PUT", f"vhosts/{quote(vhost, safe='')}")
        self.api(
            "PUT",
            f"permissions/{quote(vhost, safe='')}/{_MANAGER}",
            dict.fromkeys(("configure", "write", "read"), ".*"),
        )
        for name in names:
            body = {"type": "fanout"} if kind == "exchanges" else {}
            self.api("PUT", f"{kind}/{quote(vhost, safe='')}/{quote(name, safe='')}", body)

    def api(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 # any JSON
        """Ask the management API as `manager`; None where it answers nothing."""
        response = self._request(method, path, body)
        if response.status >= 400:  # noqa: PLR2004 # refused
            raise AssertionError(f"{method} {path}: {response.status} {response.data!r}")
        return response.json() if response.data else None

    def users(self) -> list[str]:
        """Who may log in, besides `manager`."""
        return [user["name"] for user in self.api("GET", "users") if user["name"] != _MANAGER]

    def running(self, user: str) -> int:
        """How many connections of that user run."""
        states = [one["state"] for one in self.api("GET", "connections") if one.get("user") == user]
        return states.count("running")

    def command(self, tool: str, fields: dict[str, str], *arguments: str) -> list[str]:
        """The command line of one of `amqp-tools` with an issued credential."""
        return [
            *(tool, "-s", loopback.HOST, "--port", str(self.port), "--vhost", fields["vhost"]),
            *("--username", fields["username"], "--password", fields["password"], *arguments),
        ]

    def run(self, tool: str, fields: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run it."""
        return subprocess.run(  # noqa: S603 # a fixed program, no shell
            self.command(tool, fields, *arguments), capture_output=True, text=True, timeout=60, check=False
        )

    @property
    def _names(self) -> Process:
        return Process(name="epmd", directory=self.directory / "names")

    def _status(self, path: str) -> int:
        try:
            return self._request("GET", path).status
        except urllib3.exceptions.HTTPError:
            return 0

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> urllib3.BaseHTTPResponse:
        headers = urllib3.make_headers(basic_auth=f"{_MANAGER}:{self.password}")
        url = f"http://{loopback.HOST}:{self.api_port}/api/{path}"
        json = {} if body is None and method in {"PUT", "POST"} else body
        return urllib3.request(method, url, json=json, headers=headers, timeout=30, retries=False)


__all__: Sequence[str] = ["PACKAGE", "TOOLS", "RabbitMQ", "program", "tools"]
