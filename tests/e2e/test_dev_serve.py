"""`shorthold serve` alone: it says where it listens once it does, on either family of addresses."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.keys.files import load_or_create

CONFIGURATION = """
[vault]
addr = "http://127.0.0.1:1"
[vault.broker]
mount = "shorthold-broker"
role = "broker"
key_file = "broker.pem"
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_says_where_it_listens_once_it_answers_there(tmp_path: Path, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, 0), family=family).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    load_or_create(tmp_path / "broker.pem")
    (tmp_path / "shorthold.toml").write_text(CONFIGURATION)
    serve = subprocess.Popen(
        [sys.executable, "-m", "controlplane", "serve", "--no-worker", "--host", host, "--port", "0"],
        cwd=tmp_path,
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert serve.stderr is not None
        told = next((line for line in serve.stderr if "listens on" in line), "")
        shown, _, port = told.strip().rpartition(":")
        assert shown.endswith(f"http://[{host}]" if ":" in host else f"http://{host}")
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        serve.send_signal(signal.SIGTERM)
        _, rest = serve.communicate(timeout=60)
    assert serve.returncode in {0, -signal.SIGTERM}, rest
