"""What programs open with a credential: a database connection, TLS with a certificate, an SSH agent."""

import contextlib
import os
import ssl
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from controlplane.model.errors import ConfigurationError
from controlplane.sdk.access import Credential
from controlplane.sdk.keeping import private_directory, write_private

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Engine

_WITHIN: Final = 10.0


def postgresql(credential: Credential, conninfo: str = "", **options: Any) -> "psycopg.Connection[Any]":
    """A psycopg connection as the issued user; `conninfo` and `options` say where, as psycopg has it.

    Raises: psycopg.OperationalError: PostgreSQL refuses; OverError: the access is over.
    """
    import psycopg  # noqa: PLC0415 # only who has a database needs it

    return psycopg.connect(conninfo, user=credential.username, password=credential.password, **options)


def sqlalchemy(credential: Credential, url: str, connect: Callable[..., Any] | None = None, **options: Any) -> "Engine":
    """An SQLAlchemy engine whose connections are made as the issued user; once the access is over, none is.

    `url` has neither user nor password. `connect` is the driver's own where it is not psycopg's.
    """
    from sqlalchemy import create_engine, make_url  # noqa: PLC0415 # as above

    where = make_url(url)

    def connected() -> Any:  # noqa: ANN401 # whatever the driver gives
        if connect is not None:
            return connect(user=credential.username, password=credential.password)
        plain = where.set(drivername="postgresql").render_as_string(hide_password=False)
        return postgresql(credential, plain)

    return create_engine(url, creator=connected, **options)


def tls(credential: Credential, *, cafile: str | None = None, server: bool = False) -> ssl.SSLContext:
    """A context that shows the issued certificate, as a client or as a `server`.

    It trusts `cafile`, or else the authority that issued the certificate.
    """
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    own = None if cafile else credential.issuing_ca
    context = ssl.create_default_context(purpose, cafile=cafile, cadata=own)
    with private_directory() as place:  # OpenSSL reads files only
        parts = [credential[name] for name in ("certificate", "ca_chain") if name in credential]
        certificate = write_private(place / "certificate.pem", "\n".join(parts))
        context.load_cert_chain(certificate, write_private(place / "key.pem", credential.private_key))
    return context


@contextlib.contextmanager
def ssh_files(credential: Credential) -> Generator[Path]:
    """The private key's file (0600), its certificate beside it, as `ssh -i` takes them; gone afterwards."""
    with private_directory() as place:
        key = write_private(place / "key", credential.private_key.rstrip() + "\n")
        write_private(place / "key-cert.pub", credential.certificate.rstrip() + "\n")
        yield key


@contextlib.contextmanager
def ssh_agent(credential: Credential) -> Generator[str]:
    """An `ssh-agent` of its own that holds the issued key: the value for SSH_AUTH_SOCK. It dies with the context.

    Raises: ConfigurationError: OpenSSH is not installed, or it does not take the key.
    """
    with private_directory() as place:
        where = place / "agent"
        try:
            agent = subprocess.Popen(  # noqa: S603 # in the foreground: it is a child that ends with us
                ["ssh-agent", "-D", "-a", str(where)],  # noqa: S607 # the user's own OpenSSH
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise ConfigurationError(f"ssh-agent cannot be started: {error.strerror}") from None
        with agent:
            try:
                if agent.stdout is not None:
                    agent.stdout.readline()  # it says where it listens once it does
                with ssh_files(credential) as key:
                    added = subprocess.run(  # noqa: S603 # a file that we made
                        ["ssh-add", "-q", str(key)],  # noqa: S607 # as above
                        env={"PATH": os.defpath, "SSH_AUTH_SOCK": str(where)},
                        stdin=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        timeout=_WITHIN,
                        check=False,
                    )
                if added.returncode:
                    raise ConfigurationError("ssh-agent does not take the issued key")
                yield str(where)
            finally:
                agent.terminate()
