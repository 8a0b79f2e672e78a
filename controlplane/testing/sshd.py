"""A real OpenSSH server for tests: Debian's program, on loopback, that trusts one certificate authority and no key."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from controlplane.dev import loopback
from controlplane.dev.process import Process

PACKAGE: Final = "openssh-server"
_SEPARATED: Final = Path("/run/sshd")
_READY: Final = timedelta(seconds=60)


def program() -> str | None:
    """The server, None where it is not installed."""
    return shutil.which("sshd", path=f"{os.defpath}:/usr/sbin:/sbin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sshd:
    """`authority` is the public key that it trusts; `principals` may log in to the account that the tests run as."""

    directory: Path
    authority: str
    principals: Sequence[str]
    port: int = field(default_factory=lambda: loopback.free_port(but=set()))

    @property
    def process(self) -> Process:
        """The server."""
        return Process(name="sshd", directory=self.directory)

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self.process.log.read_text(encoding="utf-8")

    def start(self) -> None:
        """Start it and wait until it answers."""
        if os.geteuid() == 0:
            _SEPARATED.mkdir(mode=0o755, exist_ok=True)  # it refuses to run as root without
        for name, text in (("ca.pub", self.authority), ("principals", "\n".join(self.principals)), ("krl", "")):
            (self.directory / name).write_text(f"{text}\n" if text else "", encoding="utf-8")
        self._keygen("-t", "ed25519", "-N", "", "-q", "-f", "host")
        settings = {
            "Port": str(self.port),
            "ListenAddress": loopback.HOST,
            "HostKey": str(self.directory / "host"),
            "PidFile": "none",
            "TrustedUserCAKeys": str(self.directory / "ca.pub"),
            "AuthorizedPrincipalsFile": str(self.directory / "principals"),
            "AuthorizedKeysFile": "none",
            "RevokedKeys": str(self.directory / "krl"),
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "StrictModes": "no",
            "UsePAM": "no",
            "LogLevel": "VERBOSE",
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        (self.directory / "sshd_config").write_text(text, encoding="utf-8")
        command = [program() or "sshd", "-D", "-e", "-f", str(self.directory / "sshd_config")]
        self.process.start(command, cwd=self.directory, environment={})
        self.process.wait(lambda: "listening on" in self.log, _READY)

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    def login(
        self, key: str, certificate: str, *command: str, options: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[str]":
        """Log in with this key and certificate and run `command`."""
        for name, text in (("agent", key), ("agent-cert.pub", certificate)):
            file = self.directory / name
            file.unlink(missing_ok=True)
            file.touch(mode=0o600)
            file.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        known = (
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
        )
        account = pwd.getpwuid(os.geteuid()).pw_name
        return subprocess.run(  # noqa: S603 # a fixed program, no shell
            [
                *(
                    "ssh",
                    "-F",
                    "none",
                    "-p",
                    str(self.port),
                    "-i",
                    str(self.directory / "agent"),
                    "-o",
                    "LogLevel=ERROR",
                ),
                *(part for option in known for part in ("-o", option)),
                *(*options, f"{account}@{loopback.HOST}", *command),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def revoke(self, serial: str) -> None:
        """Put a certificate's serial on the server's revocation list; it is read again at every login."""
        (self.directory / "serials").write_text(f"serial: {serial}\n", encoding="utf-8")
        self._keygen("-k", "-f", "krl", "-s", "ca.pub", "serials")

    def _keygen(self, *arguments: str) -> None:
        subprocess.run(  # noqa: S603 # a fixed program, no shell
            ["ssh-keygen", *arguments],  # noqa: S607 # wherever it is
            cwd=self.directory,
            check=True,
            capture_output=True,
            timeout=60,
        )
