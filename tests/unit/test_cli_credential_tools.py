"""`shorthold credential` called by kubectl, aws and skopeo themselves, which use what it prints (C5, L12)."""

import base64
import hashlib
import json
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pytest_socket import enable_socket
from typing_extensions import override

from controlplane.model.canonical import JsonValue
from controlplane.settings import environment_with
from controlplane.testing.canned import Canned, canned

Needed = Callable[[str, object], None]

AGENTS_PAGE = Path(__file__).parents[2] / "docs" / "agents.md"
ID = "gr_" + "a" * 24
TOKEN = "canary-bearer"
WORDS = ("-m", "controlplane", "credential", "cluster", "--task", "T-1", "--intent", "deploy", "--format")
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


class Quiet(BaseHTTPRequestHandler):
    def answer(self, status: int, body: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(handler: type[Quiet], tls: ssl.SSLContext | None = None) -> Generator[int]:
    """The port of 127.0.0.1 where `handler` answers, while the context lasts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Authority:
    """A certificate authority of the test's own; `seen` are who came to its server, and with what."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    seen: list[tuple[str | None, str | None]] = field(default_factory=list[tuple[str | None, str | None]])

    def issue(self, name: str, *, own: bool = False) -> tuple[str, str]:
        """A certificate for `name`, and its key."""
        key = self.key if own else ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=own, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        plain = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()

    @contextmanager
    def cluster(self, directory: Path) -> Generator[str]:
        """An API server that knows whoever has the token or a certificate of ours, and nobody else."""
        parts = {"ca.pem": self.issue("test authority", own=True)[0]}
        parts["server.pem"], parts["server.key"] = self.issue("localhost")
        for name, text in parts.items():
            (directory / name).write_text(text)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(directory / "ca.pem"))
        tls.load_cert_chain(directory / "server.pem", directory / "server.key")
        tls.verify_mode = ssl.CERT_OPTIONAL
        seen = self.seen

        class Handler(Quiet):
            def do_GET(self) -> None:
                peer = cast("dict[str, Any]", cast("ssl.SSLSocket", self.connection).getpeercert() or {})
                name = next(
                    (value for part in peer.get("subject", ()) for key, value in part if key == "commonName"), None
                )
                seen.append((self.headers.get("Authorization"), name))
                known = seen[-1] == (f"Bearer {TOKEN}", None) or (seen[-1][0] is None and name is not None)
                self.answer(200 if known else 401, json.dumps({"major": "1", "known": known}).encode())

        with serving(Handler, tls) as port:
            yield f"https://localhost:{port}"


@dataclass
class Registry:
    """A registry with one image, for whoever has the password; `seen` are the names and passwords that came.

    Source: OCI Distribution Specification, "Pulling manifests" and "Pulling blobs".
    """

    username: str
    password: str
    seen: list[str] = field(default_factory=list[str])

    @contextmanager
    def at(self) -> Generator[int]:
        """Its port: by plain HTTP, at each name of this machine."""
        layer, config = b"a layer, as good as any", b'{"architecture": "amd64", "os": "linux"}'
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": described("application/vnd.oci.image.config.v1+json", config),
                "layers": [described("application/vnd.oci.image.layer.v1.tar", layer)],
            }
        ).encode()
        held = {f"/v2/shop/blobs/{digest(blob)}": (BLOB, blob) for blob in (layer, config)}
        held |= {"/v2/": ("application/json", b"{}"), "/v2/shop/manifests/1": (MANIFEST, manifest)}
        ours = self

        class Handler(Quiet):
            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "").removeprefix("Basic ")
                if given:
                    ours.seen.append(base64.b64decode(given).decode())
                if not given or ours.seen[-1] != f"{ours.username}:{ours.password}":
                    self.answer(401, b"{}", **{"WWW-Authenticate": 'Basic realm="shop"'})
                elif self.path in held:
                    kind, body = held[self.path]
                    self.answer(200, body, kind)
                else:
                    self.answer(404, b"{}")

        with serving(Handler) as port:
            yield port


BLOB, MANIFEST = "application/octet-stream", "application/vnd.oci.image.manifest.v1+json"


def digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def described(kind: str, blob: bytes) -> dict[str, str | int]:
    return {"mediaType": kind, "digest": digest(blob), "size": len(blob)}


@pytest.fixture
def server() -> Generator[Canned]:
    enable_socket()
    grant: JsonValue = {
        "id": ID,
        "state": "active",
        "entitlement": "cluster",
        "task": "T-1",
        "issued_at": datetime.now(UTC).isoformat(),
        "expires_at": (datetime.now(UTC) + timedelta(minutes=10)).isoformat(),
        "heartbeat_due_at": None,
    }
    with canned() as other:
        other.answers["POST /v1/grants"] = (201, {"grant": grant, "leases": [], "wrapping_token": "w"})
        yield other


def environment(server: Canned, home: Path) -> dict[str, str]:
    us = {"SHORTHOLD_ADDR": server.addr, "BAO_ADDR": server.addr, "SHORTHOLD_TOKEN": "tok"}
    return {"PATH": environment_with()["PATH"], "HOME": str(home), **us}


def kubectl(version: str, cluster: str, server: Canned, directory: Path) -> "subprocess.CompletedProcess[str]":
    program: dict[str, Any] = {"apiVersion": version, "command": sys.executable, "args": [*WORDS, "kubernetes"]}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": cluster, "certificate-authority": str(directory / "ca.pem")}}],
        "users": [{"name": "u", "user": {"exec": {**program, "interactiveMode": "Never"}}}],
    }
    (directory / "kubeconfig").write_text(json.dumps(config))
    return subprocess.run(
        ["kubectl", "--kubeconfig", str(directory / "kubeconfig"), "get", "--raw", "/version"],
        cwd=directory,
        env=environment(server, directory),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_kubectl_itself_comes_with_the_token_or_the_certificate(server: Canned, tmp_path: Path, needed: Needed) -> None:
    needed("kubernetes-client", shutil.which("kubectl"))
    told = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"], capture_output=True, text=True, check=True, timeout=60
    )
    old = int(json.loads(told.stdout)["clientVersion"]["minor"].rstrip("+")) < 22  # v1 came with 1.22
    ours = Authority()
    certificate, key = ours.issue("deployer")
    token: JsonValue = {"data": {"k": {"token": TOKEN, "namespace": "shop"}}}
    pair: JsonValue = {"data": {"c": {"certificate": certificate, "private_key": key}}}
    with ours.cluster(tmp_path) as cluster:
        for version in VERSIONS[1:] if old else VERSIONS:
            for fields, came in ((token, (f"Bearer {TOKEN}", None)), (pair, (None, "deployer"))):
                server.answers["POST /v1/sys/wrapping/unwrap"] = (200, fields)
                run = kubectl(version, cluster, server, tmp_path)
                assert run.returncode == 0, run.stderr
                assert json.loads(run.stdout)["known"] is True
                assert ours.seen[-1] == came
                assert TOKEN not in run.stdout + run.stderr
        server.answers["POST /v1/sys/wrapping/unwrap"] = (200, {"data": {"k": {"token": "of somebody else"}}})
        assert kubectl(VERSIONS[1], cluster, server, tmp_path).returncode != 0


def test_aws_itself_signs_with_the_key(server: Canned, tmp_path: Path, needed: Needed) -> None:
    needed("awscli", shutil.which("aws"))
    fields = {"access_key": "AKIACANARY", "secret_key": "secret-canary", "session_token": "session-canary"}
    server.answers["POST /v1/sys/wrapping/unwrap"] = (200, {"data": {"a": dict(fields)}})
    (tmp_path / "config").write_text(
        f"[default]\nregion = eu-central-1\ncredential_process = {sys.executable} {' '.join(WORDS)} aws\n"
    )
    answer, result = "GetCallerIdentityResponse", "GetCallerIdentityResult"
    server.answers["POST /"] = (200, f"<{answer}><{result}><Account>4711</Account></{result}></{answer}>")
    own = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_EC2_METADATA_DISABLED": "true"}
    run = subprocess.run(
        ["aws", "--endpoint-url", server.addr, "sts", "get-caller-identity", "--output", "json"],
        env={**environment(server, tmp_path), **own},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["Account"] == "4711"
    asked = server.asked[-1]
    assert "Credential=AKIACANARY/" in asked.headers["Authorization"]
    assert asked.headers["X-Amz-Security-Token"] == "session-canary"
    assert "canary" not in (run.stdout + run.stderr).lower()


def skopeo(image: str, server: Canned, directory: Path) -> "subprocess.CompletedProcess[str]":
    """Copy `image` into `directory`, where skopeo asks the helpers that its file of credentials names."""
    us = environment(server, directory)
    return subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{image}", "dir:image"],
        cwd=directory,
        env={**us, "PATH": f"{directory}:{us['PATH']}", "REGISTRY_AUTH_FILE": str(directory / "auth.json")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_skopeo_itself_pulls_with_the_password_and_takes_it_to_no_other_registry(
    server: Canned, tmp_path: Path, needed: Needed
) -> None:
    needed("skopeo", shutil.which("skopeo"))
    (documented,) = re.findall(r"```sh\n(#!/bin/sh\n.*?--format docker.*?)```", AGENTS_PAGE.read_text(), re.DOTALL)
    ours_by_name = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m controlplane "$@"\n'
    for name, program in (("docker-credential-shop", documented), ("shorthold", ours_by_name)):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    password = "canary pass:word/ü"
    server.answers["POST /v1/sys/wrapping/unwrap"] = (200, {"data": {"r": {"username": "ci", "password": password}}})
    ours = Registry("ci", password)
    with ours.at() as port:
        (tmp_path / "auth.json").write_text(json.dumps({"credHelpers": {f"127.0.0.1:{port}": "shop"}}))
        run = skopeo(f"127.0.0.1:{port}/shop:1", server, tmp_path)
        assert run.returncode == 0, run.stderr
        assert json.loads((tmp_path / "image" / "manifest.json").read_text())["mediaType"] == MANIFEST
        assert set(ours.seen) == {f"ci:{password}"}
        assert "canary" not in run.stdout + run.stderr
        asked, came = len(server.asked), len(ours.seen)

        assert skopeo(f"localhost:{port}/shop:1", server, tmp_path).returncode != 0
        assert len(server.asked) == asked
        assert set(ours.seen[came:]) <= {":"}

        reason = "frozen for SEC-7"
        server.answers["POST /v1/grants"] = (403, {"code": "frozen", "title": "Frozen", "detail": reason})
        refused = skopeo(f"127.0.0.1:{port}/shop:1", server, tmp_path)
        assert refused.returncode != 0
        assert reason in refused.stderr
        assert set(ours.seen[came:]) <= {":"}
