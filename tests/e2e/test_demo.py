"""The demo as its user runs it, and the canary: no secret that OpenBao ever issued is in any byte that was written.

Promise P5, attack L10. The server is the real one with a second audit device that logs everything in clear: what it
holds is what must be nowhere else.
"""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from controlplane.dev.openbao import bao_binary
from controlplane.dev.stack import Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

RAW_AUDIT = """
audit "file" "raw" {
  description = "In clear, for this test only."
  options {
    file_path = "raw-audit.log"
    log_raw   = "true"
  }
}
"""
JWS = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}")
SECRET_FIELDS = {"client_token", "password", "private_key", "token", "jwt"}


@dataclass(frozen=True)
class Told:
    exit_status: int
    output: str
    project: Path


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Generator[Told]:
    """One run of `shorthold demo --keep`, whose OpenBao also writes the raw log."""
    place = tmp_path_factory.mktemp("demo")
    (place / "raw.hcl").write_text(RAW_AUDIT, encoding="utf-8")
    bao = place / "bao"
    bao.write_text(f'#!/bin/sh\nexec "{bao_binary(None)}" "$@" -config="{place}/raw.hcl"\n', encoding="utf-8")
    bao.chmod(0o700)
    elsewhere = {
        "BAO_ADDR": "http://127.0.0.1:1",
        "VAULT_TOKEN": "nobodys",
        "DATABASE_URL": "postgresql://postgres@127.0.0.1:1/x",
        "SHORTHOLD_ADDR": "http://127.0.0.1:1",
        "SHORTHOLD_CONFIG": str(place / "none.toml"),
    }
    environment = {**os.environ, **elsewhere, "TMPDIR": str(place), "SHORTHOLD_BAO_BIN": str(bao), "NO_COLOR": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "controlplane", "demo", "--keep"],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    (project,) = place.glob("shorthold-demo-*")
    try:
        yield Told(exit_status=run.returncode, output=run.stdout + run.stderr, project=project)
    finally:
        Stack(project=project, say=lambda _: None).destroy()


def test_every_claim_of_the_demo_holds(told: Told) -> None:
    assert told.exit_status == 0, told.output
    for claim in (
        "eligibility is the decision that said no",
        "an UPDATE is refused by PostgreSQL itself",
        "the receipt is verified at the target",
        "the same login is refused by PostgreSQL",
        "the open session was ended",
        "restarted, on the same store",
        "its grant is revoked, at the end of its time",
        "told by a mail to pay a refund, it is denied",
        "told to read every address, it is refused by PostgreSQL itself",
        "nothing of it is alive: every receipt is verified",
        "the changed byte is found, in the right place",
        "Every claim held",
    ):
        assert claim in " ".join(told.output.split()), claim


def test_no_secret_that_openbao_issued_or_took_is_in_any_file_or_output(told: Told) -> None:
    raw = told.project / ".shorthold" / "openbao" / "raw-audit.log"
    secrets = set(_secrets(raw))
    kinds = {name for name, _ in secrets}
    assert kinds >= {"client_token", "password", "token", "jwt"}, f"the raw log shows only {sorted(kinds)}"
    assert len(secrets) > 15, "a whole demo makes more secrets than that"
    own_keys = set(_own_secrets(told.project / ".shorthold"))
    assert own_keys, "the control plane has keys"

    searched = 0
    leaks: list[str] = []
    for name, content in _written(told, but=raw):
        searched += 1
        leaks += [f"a {kind} in {name}" for kind, value in secrets | own_keys if value in content]
        if not all(map(_is_receipt, JWS.findall(content))):
            leaks.append(f"a signed token in {name}")
    assert searched > 10, "there is more to search than that"
    assert not leaks, "\n".join(sorted(set(leaks)))


def _is_receipt(signed: bytes) -> bool:
    """A receipt is signed to be shown; a token, whoever signed it, is not."""
    payload = signed.split(b".")[1]
    return set(json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))) == {"receipt"}


def _secrets(raw: Path) -> Iterator[tuple[str, bytes]]:
    for line in raw.read_text(encoding="utf-8").splitlines():
        yield from _fields(json.loads(line))


def _fields(node: object) -> Iterator[tuple[str, bytes]]:
    if isinstance(node, dict):
        for name, value in cast("dict[str, object]", node).items():
            if name in SECRET_FIELDS and isinstance(value, str) and len(value) >= 8:
                yield name, value.encode()
            else:
                yield from _fields(value)
    elif isinstance(node, list):
        for value in cast("list[object]", node):
            yield from _fields(value)


def _own_secrets(home: Path) -> Iterator[tuple[str, bytes]]:
    """The middle lines of our private keys, and the audit key."""
    for key in (home / "keys").iterdir():
        lines = key.read_bytes().splitlines()
        yield key.name, lines[len(lines) // 2]


def _written(told: Told, *, but: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of the project and of PostgreSQL, and what was printed; key and password files are what they are."""
    yield "the output", told.output.encode()
    postgres = Stack(project=told.project, say=lambda _: None).postgres
    for root in {told.project, postgres.data}:
        for path in root.rglob("*"):
            kept = path.parent.name == "keys" or path.name.endswith((".password", ".key", ".pem", "pgpass"))
            if path.is_file() and path != but and not kept:
                yield str(path.relative_to(root)), path.read_bytes()
