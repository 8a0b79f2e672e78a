"""A real OpenLDAP for tests: Debian's program, in a directory of its own, on loopback."""

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from controlplane.dev import loopback
from controlplane.dev.process import Process

PACKAGE: Final = "slapd"
TOOLS: Final = "ldap-utils"
SUFFIX: Final = "dc=acme,dc=example"
MANAGER: Final = f"cn=manager,{SUFFIX}"
_READY: Final = timedelta(seconds=60)


def program() -> str | None:
    """The server, None where it is not installed."""
    return shutil.which("slapd", path=f"{os.defpath}:/usr/sbin:/sbin")


def tools() -> str | None:
    """A client of LDAP, None where it is not installed."""
    return shutil.which("ldapmodify")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slapd:
    """A directory in which members of `cn=address-readers` may read people, and nobody else may read anything."""

    directory: Path
    port: int = field(default_factory=lambda: loopback.free_port(but=set()))
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def process(self) -> Process:
        """The server."""
        return Process(name="slapd", directory=self.directory)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ldap://{loopback.HOST}:{self.port}"

    def start(self) -> None:
        """Start it, wait until it answers, and fill it."""
        (self.directory / "data").mkdir()
        readers = f"cn=address-readers,ou=groups,{SUFFIX}"
        lines = [
            *(f"include /etc/ldap/schema/{name}.schema" for name in ("core", "cosine", "inetorgperson")),
            *("modulepath /usr/lib/ldap", "moduleload back_mdb", "database mdb", f'suffix "{SUFFIX}"'),
            *(f'rootdn "{MANAGER}"', f"rootpw {self.password}", f"directory {self.directory / 'data'}"),
            "access to attrs=userPassword by anonymous auth by * none",
            f'access to dn.subtree="ou=people,{SUFFIX}" by group.exact="{readers}" read by * none',
            "access to * by * none",
        ]
        configuration = self.directory / "slapd.conf"
        configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        configuration.chmod(0o600)
        command = [program() or "slapd", "-d", "0", "-h", self.url, "-f", str(configuration)]
        self.process.start(command, cwd=self.directory, environment={})
        self.process.wait(lambda: not loopback.is_free(self.port), _READY)
        parts = [f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: acme\ndc: acme\n"]
        units = ("agents", "groups", "people")
        parts += [f"dn: ou={unit},{SUFFIX}\nobjectClass: organizationalUnit\nou: {unit}\n" for unit in units]
        parts.append(f"dn: uid=ann,ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: ann\ncn: Ann\nsn: Ann\n")
        parts.extend(
            f"dn: cn={name},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: {name}\nmember: {MANAGER}\n"
            for name in ("address-readers", "others")
        )
        self.modify("\n".join(parts), "-a")

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    def modify(self, ldif: str, *options: str) -> None:
        """Apply LDIF as the manager, as Vault would. Raises: AssertionError: the directory refuses."""
        done = self._run("ldapmodify", MANAGER, self.password, *options, text=ldif)
        if done.returncode:
            raise AssertionError(done.stderr)

    def search(self, dn: str, password: str, base: str) -> list[str]:
        """The names below `base` that whoever binds so may see. Raises: AssertionError: nobody may bind so."""
        done = self._run("ldapsearch", dn, password, "-LLL", "-b", base, "dn")
        if "Invalid credentials" in done.stderr:
            raise AssertionError("Invalid credentials")
        return [line.removeprefix("dn: ") for line in done.stdout.splitlines() if line.startswith("dn: ")]

    def members(self, group: str) -> list[str]:
        """Who is in a group, besides the manager."""
        done = self._run("ldapsearch", MANAGER, self.password, "-LLL", "-o", "ldif-wrap=no", "-b", group, "member")
        found = [line.removeprefix("member: ") for line in done.stdout.splitlines() if line.startswith("member: ")]
        return [member for member in found if member != MANAGER]

    def _run(
        self, tool: str, dn: str, password: str, *options: str, text: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603 # a fixed program, no shell
            [tool, "-x", "-H", self.url, "-D", dn, "-w", password, *options],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
