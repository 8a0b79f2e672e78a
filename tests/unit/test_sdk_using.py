"""What programs open with a credential, with the real OpenSSH of this machine."""

import shutil
import stat
import subprocess
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)

import controlplane.sdk as shorthold
from controlplane.model.secret import Secret
from controlplane.sdk.access import Access
from controlplane.sdk.exchanges import Opened


def issued() -> Access:
    """A key and a certificate as the engine `ssh` gives them."""
    key, authority = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    certificate = (
        SSHCertificateBuilder()
        .public_key(key.public_key())
        .type(SSHCertificateType.USER)
        .serial(7)
        .key_id(b"sh-7")
        .valid_principals([b"deploy"])
        .valid_after(0)
        .valid_before(2**63)
        .sign(authority)
    )
    fields = {
        "private_key": Secret(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()),
        "certificate": Secret(certificate.public_bytes().decode()),
    }
    grant = {"id": "gr_x", "entitlement": "restart", "task": "T-1", "expires_at": "2026-07-01T12:05:00+00:00"}
    return Access(Opened(grant=grant, credentials={"shell": fields}))


def test_an_ssh_agent_holds_key_and_certificate_and_dies_with_its_context(
    needed: Callable[[str, object], None],
) -> None:
    needed("openssh-client", shutil.which("ssh-agent"))
    with shorthold.ssh_agent(issued().only) as socket:
        listed = ["ssh-add", "-l"]
        environment = {"PATH": "/usr/bin:/bin", "SSH_AUTH_SOCK": socket}
        run = subprocess.run(listed, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert "ED25519-CERT" in run.stdout
    assert subprocess.run(listed, env=environment, capture_output=True, timeout=60, check=False).returncode == 2


def test_ssh_files_are_private_and_gone_afterwards() -> None:
    with shorthold.ssh_files(issued().only) as key:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
        assert key.with_name("key-cert.pub").exists()
    assert not key.parent.exists()


def test_after_the_end_nothing_is_opened_any_more() -> None:
    access = issued()
    credential = access.only
    access.end(shorthold.OverError("left"))
    with pytest.raises(shorthold.OverError), shorthold.ssh_files(credential):
        pass
