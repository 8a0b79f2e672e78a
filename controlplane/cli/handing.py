"""How a program gets its credential: a private file, a descriptor or a variable; known programs by themselves."""

import contextlib
import os
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.model.errors import InvalidRequestError
from controlplane.sdk.access import Access, Credential
from controlplane.sdk.keeping import private_directory, write_private

_WAY: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(?:([a-z][a-z0-9-]*)\.)?([A-Za-z0-9_][A-Za-z0-9_.-]*)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What is run: the program with its arguments, and what its environment has besides."""

    command: Sequence[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One field of one credential, and the variable that leads to it; without a `scope` it is the only one there is."""

    variable: str
    scope: str | None
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Handing:
    """What was asked for on the command line. With no way at all, the program has to be a known one."""

    command: Sequence[str]
    files: Sequence[Way]
    fds: Sequence[Way]
    envs: Sequence[Way]
    scope: str | None

    @classmethod
    def parse(
        cls,
        command: Sequence[str],
        *,
        files: Sequence[str] = (),
        fds: Sequence[str] = (),
        envs: Sequence[str] = (),
        scope: str | None = None,
    ) -> "Handing":
        """Raises: InvalidRequestError: a way cannot be read, or there is none; nothing was asked for."""
        parsed = cls(
            command=command,
            files=[_way(text) for text in files],
            fds=[_way(text) for text in fds],
            envs=[_way(text) for text in envs],
            scope=scope,
        )
        if not (files or fds or envs) and parsed.program not in KNOWN:
            raise InvalidRequestError(
                f"say how {parsed.program} gets its credential: --file, --fd or --env NAME=SCOPE.FIELD; only "
                f"{', '.join(sorted(KNOWN))} know by themselves"
            )
        return parsed

    @property
    def program(self) -> str:
        """The program's name without its directory."""
        return os.path.basename(self.command[0])  # noqa: PTH119 # a text, not a file of ours


@contextlib.contextmanager
def handed(handing: Handing, access: Access, runtime: str | None) -> Generator[Ready]:
    """Everything in its place while the context lasts. Raises: InvalidRequestError: there is no such field."""
    with private_directory(runtime) as place, contextlib.ExitStack() as held:
        environment: dict[str, str] = {}
        for way in handing.files:
            environment[way.variable] = str(write_private(place / way.variable, _value(access, way)))
        for way in handing.fds:
            environment[way.variable] = f"/dev/fd/{held.enter_context(_readable_once(_value(access, way)))}"
        for way in handing.envs:
            environment[way.variable] = _value(access, way)
        command = handing.command
        if not environment:
            fields, prepared = KNOWN[handing.program]
            more, arguments = prepared(_fitting(access, fields, handing), place)
            environment, command = {**environment, **more}, [command[0], *arguments, *command[1:]]
        yield Ready(command=command, environment=environment)


def _postgresql(credential: Credential, place: Path) -> tuple[dict[str, str], list[str]]:
    passwords = write_private(place / "pgpass", pgpass_line(credential))
    return {"PGUSER": credential.username, "PGPASSFILE": str(passwords), "PGPASSWORD": ""}, []  # "" is none


def _mysql(credential: Credential, place: Path) -> tuple[dict[str, str], list[str]]:
    user, password = (re.sub(r'(["\\])', r"\\\1", text) for text in (credential.username, credential.password))
    file = write_private(place / "my.cnf", f'[client]\nuser="{user}"\npassword="{password}"\n')
    return {}, [f"--defaults-extra-file={file}"]


def _ssh(credential: Credential, place: Path) -> tuple[dict[str, str], list[str]]:
    key = write_private(place / "key", credential.private_key.rstrip() + "\n")
    certificate = write_private(place / "key-cert.pub", credential.certificate.rstrip() + "\n")
    options = (f"IdentityFile={key}", f"CertificateFile={certificate}", "IdentitiesOnly=yes", "IdentityAgent=none")
    return {}, [word for option in options for word in ("-o", option)]


def _curl(credential: Credential, place: Path) -> tuple[dict[str, str], list[str]]:
    parts = [credential[name] for name in ("certificate", "ca_chain") if name in credential]
    certificate = write_private(place / "certificate.pem", "\n".join(parts) + "\n")
    key = write_private(place / "key.pem", credential.private_key.rstrip() + "\n")
    return {}, ["--cert", str(certificate), "--key", str(key)]


Prepared = Callable[[Credential, Path], tuple[dict[str, str], list[str]]]
_LOGIN: Final = ("username", "password")
_PAIR: Final = ("private_key", "certificate")
KNOWN: Final[Mapping[str, tuple[Sequence[str], Prepared]]] = {
    **dict.fromkeys(("psql", "pg_dump", "pg_restore"), (_LOGIN, _postgresql)),
    **dict.fromkeys(("mysql", "mysqldump", "mariadb", "mariadb-dump"), (_LOGIN, _mysql)),
    **dict.fromkeys(("ssh", "scp", "sftp"), (_PAIR, _ssh)),
    "curl": (_PAIR, _curl),
}
"""Programs that need no way: the fields they take, and where they look for them."""


def pgpass_line(credential: Credential, where: str = "*:*:*") -> str:
    """A line of a password file. Source: PostgreSQL docs, "The Password File"."""
    user, password = (re.sub(r"([\\:])", r"\\\1", text) for text in (credential.username, credential.password))
    return f"{where}:{user}:{password}\n"


def fitting(access: Access, fields: Sequence[str], scope: str | None = None) -> Credential:
    """The one credential that has these fields, or that of `scope`. Raises: InvalidRequestError: none or several."""
    names = [name for name in access if (scope in {None, name}) and all(field in access[name] for field in fields)]
    if len(names) != 1:
        having = f"has {' and '.join(fields)}"
        scopes = ", ".join(access)
        which = f"{'none' if not names else 'more than one'} of the scopes {scopes} {having}"
        raise InvalidRequestError(f"{which}{': say which by --scope' if names else ''}")
    return access[names[0]]


def _fitting(access: Access, fields: Sequence[str], handing: Handing) -> Credential:
    try:
        return fitting(access, fields, handing.scope)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{handing.program} cannot be helped: {error.detail}") from None


def _way(text: str) -> Way:
    shape = _WAY.fullmatch(text)
    if shape is None:
        raise InvalidRequestError(f"{text!r} is no NAME=SCOPE.FIELD, such as PGPASSWORD=orders.password")
    return Way(variable=shape[1], scope=shape[2], field=shape[3])


def _value(access: Access, way: Way) -> str:
    try:
        return (access.only if way.scope is None else access[way.scope])[way.field]
    except KeyError as error:
        raise InvalidRequestError(f"{way.variable}: {error.args[0]}") from None


@contextlib.contextmanager
def _readable_once(value: str) -> Generator[int]:
    reads, writes = os.pipe()
    try:
        with os.fdopen(writes, "w") as end:
            end.write(value)  # far less than a pipe holds
        os.set_inheritable(reads, True)  # noqa: FBT003 # as the function is
        yield reads
    finally:
        os.close(reads)
