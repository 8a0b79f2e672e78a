"""SSH certificates on a real OpenSSH server: they open what the scope says, no more, and their end is told honestly."""

import os
import pwd
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.model.lease import Receipt, is_leased
from controlplane.testing import sshd as openssh
from controlplane.testing.real import RealPlane
from controlplane.vault.client import part

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

SCOPE: dict[str, Any] = {"name": "shell", "engine": "ssh", "principals": ["deploy"]}


def entitled(name: str, **scope: Any) -> dict[str, Any]:
    return {"entitlement": name, "scopes": [SCOPE | scope]}


@pytest.fixture(scope="module")
def plane(planes: Callable[..., RealPlane], needed: Callable[[str, object], None]) -> RealPlane:
    needed(openssh.PACKAGE, openssh.program())
    plane = planes("sse", "ssh")
    plane.root.write(f"{plane.mount('ssh')}/config/ca", {"generate_signing_key": True, "key_type": "ed25519"})
    plane.entitle(
        entitled("ssh-plain"),
        entitled("ssh-other", principals=["somebody-else"]),
        entitled("ssh-far", source_addresses=["192.0.2.0/24"]),
        entitled("ssh-near", source_addresses=["127.0.0.0/8"]),
        entitled("ssh-one-command", command="/bin/echo only this"),
        entitled("ssh-terminal", extensions=["permit-pty"]),
    )
    return plane


@pytest.fixture(scope="module")
def server(plane: RealPlane, tmp_path_factory: pytest.TempPathFactory) -> Generator[openssh.Sshd]:
    authority = str(part(plane.root.read(f"{plane.mount('ssh')}/config/ca"), "data")["public_key"])
    server = openssh.Sshd(directory=tmp_path_factory.mktemp("sshd"), authority=authority, principals=["deploy", "web"])
    server.start()
    yield server
    server.stop()


def test_a_certificate_opens_a_server_and_its_log_tells_whose_it_is(plane: RealPlane, server: openssh.Sshd) -> None:
    granted = plane.grant("ssh-plain")
    fields = plane.unwrap(granted)
    done = server.login(fields["private_key"], fields["certificate"], "id", "-un")
    assert (done.returncode, done.stdout.strip()) == (0, pwd.getpwuid(os.geteuid()).pw_name), done.stderr + server.log
    (lease,) = granted.leases
    assert f"ID sse-ssh-plain-{granted.grant.revision}-shell-" in server.log
    assert f"serial {lease.principal}" in server.log
    assert timedelta(minutes=4) < lease.expires_at - datetime.now(UTC) < timedelta(minutes=5, seconds=5)
    plane.finished(granted)


def test_it_opens_no_other_account_no_other_network_and_nothing_but_its_command(
    plane: RealPlane, server: openssh.Sshd
) -> None:
    for name in ("ssh-other", "ssh-far"):
        granted = plane.grant(name)
        fields = plane.unwrap(granted)
        assert server.login(fields["private_key"], fields["certificate"], "true").returncode == 255, name
        plane.finished(granted)
    granted = plane.grant("ssh-near")
    fields = plane.unwrap(granted)
    assert server.login(fields["private_key"], fields["certificate"], "true").returncode == 0, server.log
    plane.finished(granted)
    granted = plane.grant("ssh-one-command")
    fields = plane.unwrap(granted)
    assert server.login(fields["private_key"], fields["certificate"], "id").stdout == "only this\n"
    plane.finished(granted)


def test_a_terminal_and_forwarding_are_only_for_scopes_that_name_them(plane: RealPlane, server: openssh.Sshd) -> None:
    for name, has in (("ssh-plain", False), ("ssh-terminal", True)):
        granted = plane.grant(name)
        fields = plane.unwrap(granted)
        done = server.login(fields["private_key"], fields["certificate"], "tty", options=["-tt"])
        assert done.stdout.startswith("/dev/pts/") is has, name
        forwarded = ["-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:9"]
        done = server.login(fields["private_key"], fields["certificate"], "true", options=forwarded)
        assert done.returncode == 255, name
        plane.finished(granted)


def test_its_end_is_not_called_verified_and_the_receipt_says_until_when_it_opens_doors(
    plane: RealPlane, server: openssh.Sshd
) -> None:
    """P3: a certificate cannot be recalled."""
    granted = plane.grant("ssh-plain")
    fields = plane.unwrap(granted)
    ended = receipt(plane.finished(granted).receipt)
    (lease,) = granted.leases
    assert not is_leased(lease.id)
    (end,) = ended.ended
    assert (end.verified, end.principal) == (False, lease.principal)
    assert f"it runs out at {lease.expires_at:%Y-%m-%dT%H:%M:%SZ}" in end.evidence
    assert server.login(fields["private_key"], fields["certificate"], "true").returncode == 0, (
        "so it is said for a reason"
    )
    server.revoke(end.principal)
    assert server.login(fields["private_key"], fields["certificate"], "true").returncode == 255


def test_what_has_no_lease_is_nobody_s_orphan(plane: RealPlane) -> None:
    granted = plane.grant("ssh-plain")
    plane.compare()
    plane.finished(granted)
    plane.compare()
    assert "orphan.found" not in plane.events()


def receipt(given: Receipt | None) -> Receipt:
    assert given is not None
    return given
