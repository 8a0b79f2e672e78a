"""Bring a database to this release's schema: all of it in the caller's transaction, or nothing."""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Text, column, func, insert, inspect, select, table

from controlplane.audit.chain import GENESIS, seal_head
from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret
from controlplane.stores.schema import audit_head

LATEST: Final = "0013"
"""The version that this release works with; known here so that a start without an upgrade needs no alembic."""
_LOCK: Final = 0x73686F72
"""Any number that nobody else locks in this database."""

_VERSION: Final = table("alembic_version", column("version_num", Text)).c.version_num


def version(connection: Connection) -> str | None:
    """The version of the schema there, None where there is none."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(select(_VERSION)).scalar_one_or_none()


def upgrade(connection: Connection, key: Secret) -> None:
    """Make every change since the version there; an empty database also gets the sealed head of an empty chain.

    Raises: ConfigurationError: a newer release, or something else, made these tables.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))  # replicas that start at once
    found = version(connection)
    if found == LATEST:
        return
    _migrate(connection, found)
    if found is None:
        head = seal_head(key, GENESIS.seq, GENESIS.mac)
        connection.execute(insert(audit_head).values(place=1, seq=head.seq, mac=head.mac, seal=head.seal))


def _migrate(connection: Connection, found: str | None) -> None:
    from alembic import command  # noqa: PLC0415 # takes as long to import as the rest of the store together
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    try:
        command.upgrade(config, LATEST)
    except CommandError:
        what = f"version {found} of the schema is unknown to this release: a newer one made it"
        raise ConfigurationError(f"the store cannot be used: {what}") from None
