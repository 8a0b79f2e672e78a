"""Three OpenBao nodes on loopback that replicate to each other by raft: leaders to be killed, standbys to be asked.

The first node is the stack's own server; two more join it. After that all three are alike.
"""

import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final

from controlplane.dev import loopback
from controlplane.dev.home import write_private
from controlplane.dev.openbao import bao_binary
from controlplane.dev.process import Process, until
from controlplane.dev.stack import Stack
from controlplane.settings import bao_program
from controlplane.vault.client import VaultClient, part

_READY: Final = timedelta(seconds=60)
_ALIVE: Final = {HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS}
"""Active, or a standby. Source: OpenBao docs, api/system/health."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One server: `port` is its API's."""

    name: str
    directory: Path
    port: int

    @property
    def addr(self) -> str:
        """Its URL."""
        return f"http://{loopback.HOST}:{self.port}"

    @property
    def process(self) -> Process:
        """Its process."""
        return Process(name="openbao", directory=self.directory)

    def start(self) -> None:
        """Start it with the data it has, and wait until it is unsealed, whatever its part in the cluster then is."""
        self.process.start(
            [str(bao_binary(bao_program())), "server", "-config=openbao.hcl"], cwd=self.directory, environment={}
        )
        self.process.wait(lambda: self.health() in _ALIVE, _READY)

    def kill(self) -> None:
        """End it with kill -9, and wait until its port is free again."""
        pid = self.process.pid
        if pid is None:
            return
        os.kill(pid, signal.SIGKILL)
        if not until(lambda: self.process.pid is None and loopback.is_free(self.port), _READY):
            raise AssertionError(f"{self.name} (process {pid}) does not die")

    def health(self) -> int:
        """The status of its health; 0 where it does not answer."""
        return loopback.ask(self.port, "GET", "/v1/sys/health")[0]


@dataclass(slots=True)
class Cluster:
    """The nodes of one cluster, in the order in which they joined. Stop it before the stack."""

    stack: Stack
    directory: Path
    nodes: list[Node] = field(default_factory=list[Node])

    def start(self, operator: VaultClient) -> None:
        """Let two nodes join the stack's server, and wait until all three vote: about 25 s."""
        first = Node(
            name="node-1",
            directory=self.stack.openbao.directory,
            port=int(self.stack.openbao.addr.rpartition(":")[2]),
        )
        self.nodes.append(first)
        ports = {first.port}
        for number in (2, 3):
            port, cluster_port = (loopback.free_port(but=ports) for _ in range(2))
            ports |= {port, cluster_port}
            node = Node(name=f"node-{number}", directory=self.directory / f"node-{number}", port=port)
            self._configure(node, first, cluster_port)
            self.nodes.append(node)
            node.start()
        if not until(lambda: self.voters(operator) == len(self.nodes), _READY, every=0.5):
            raise AssertionError("the cluster does not come together")

    def stop(self) -> None:
        """Stop the two that joined; the first belongs to the stack."""
        for node in self.nodes[1:]:
            node.process.stop()

    @property
    def leader(self) -> Node | None:
        """The active node, None while there is none."""
        return next((node for node in self.nodes if node.health() == HTTPStatus.OK), None)

    def leader_port(self) -> int | None:
        """Where a load balancer that asks for everybody's health sends a new connection."""
        leader = self.leader
        return None if leader is None else leader.port

    def standbys(self) -> Sequence[Node]:
        """The nodes that are alive and not active."""
        return [node for node in self.nodes if node.health() == HTTPStatus.TOO_MANY_REQUESTS]

    def whole(self) -> bool:
        """Whether one leads and all others stand by."""
        return self.leader is not None and len(self.standbys()) == len(self.nodes) - 1

    def voters(self, operator: VaultClient) -> int:
        """How many nodes may vote."""
        config = part(operator.read("sys/storage/raft/configuration"), "data").get("config")
        servers = config.get("servers") if isinstance(config, dict) else None
        found = servers if isinstance(servers, list) else []
        return sum(1 for server in found if isinstance(server, dict) and server.get("voter") is True)

    def _configure(self, node: Node, first: Node, cluster_port: int) -> None:
        node.directory.mkdir(mode=0o700)
        (node.directory / "raft").mkdir(mode=0o700)
        shutil.copyfile(first.directory / "seal.key", node.directory / "seal.key")
        text = (first.directory / "openbao.hcl").read_text(encoding="utf-8")
        text = text[: text.index('initialize "bootstrap"')]  # what is there already comes with the data
        known = self.stack.home.known_port("openbao-cluster")
        for before, after in (
            (f"{loopback.HOST}:{first.port}", f"{loopback.HOST}:{node.port}"),
            (f"{loopback.HOST}:{known}", f"{loopback.HOST}:{cluster_port}"),
            ('node_id                = "shorthold-dev"', f'node_id = "{node.name}"'),
            ('storage "raft" {', f'storage "raft" {{\n  retry_join {{\n    leader_api_addr = "{first.addr}"\n  }}'),
        ):
            if before not in text:
                raise AssertionError(f"{before!r} is not in the configuration any more")
            text = text.replace(before, after)
        write_private(node.directory / "openbao.hcl", text)
