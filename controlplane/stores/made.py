"""Whether a store was ever made: its audit chain then has a key already."""

from pathlib import Path

from controlplane.stores import postgresql, sqlite
from controlplane.stores.faults import told
from controlplane.stores.sql import parse_url
from controlplane.stores.upgrade import version


def is_made(url: str) -> bool:
    """Whether there is a store at `url`, of any release. Nothing is made by asking.

    Raises: ConfigurationError: no such kind of database. StoreUnavailableError: it cannot be read.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        engine, place = postgresql.open_evidence(parsed), parsed.render_as_string(hide_password=True)
    else:
        path = Path(parsed.database or "")
        if not path.exists():
            return False
        engine, place = sqlite.open_copy(path), str(path)
    try:
        with told(place), engine.connect() as connection:
            return version(connection) is not None
    finally:
        engine.dispose()
