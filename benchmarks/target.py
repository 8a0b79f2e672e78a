"""The database itself: whether a credential works, and when its user is gone."""

import threading
import time
from collections.abc import Sequence

import psycopg

from benchmarks.way import Held
from benchmarks.wire import WrongAnswerError
from controlplane.model.secret import Secret

_LOOK_EVERY = 0.005  # seconds
_PATIENCE = 60.0  # seconds


class UserWatch:
    """Looks every 5 ms which of the expected users PostgreSQL still has."""

    def __init__(self, owner: Secret) -> None:
        self._connection = psycopg.connect(owner.reveal(), autocommit=True)
        self._lock = threading.Lock()
        self._waiting: dict[str, float] = {}
        self._gone: list[tuple[float, float]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def expect(self, held: Held, finished_at: float) -> None:
        """See Watch."""
        with self._lock:
            self._waiting[held.username] = finished_at

    def seen_gone(self) -> Sequence[tuple[float, float]]:
        """See Watch."""
        deadline = time.monotonic() + _PATIENCE
        while self._waiting:
            if time.monotonic() > deadline or not self._thread.is_alive():
                raise WrongAnswerError(f"{len(self._waiting)} users are still in PostgreSQL")
            time.sleep(_LOOK_EVERY)
        return self._gone

    def close(self) -> None:
        """See Watch."""
        self._stopping.set()
        self._thread.join()
        self._connection.close()

    def _look(self) -> None:
        while not self._stopping.wait(_LOOK_EVERY):
            with self._lock:
                asked = list(self._waiting)
            if not asked:
                continue
            rows = self._connection.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [asked]).fetchall()
            at = time.time()
            present = {row[0] for row in rows}
            with self._lock:
                for username in asked:
                    if username not in present:
                        self._gone.append((self._waiting.pop(username), at))


def check_works(dsn: Secret) -> None:
    """Log in with a credential and read what it is for. Raises: WrongAnswerError: it does not work."""
    try:
        with psycopg.connect(dsn.reveal()) as connection:
            connection.execute("SELECT id FROM sales.orders LIMIT 1").fetchall()
    except psycopg.Error as error:
        raise WrongAnswerError(f"the credential does not work ({type(error).__name__})") from None


def check_gone(dsn: Secret) -> None:
    """See PostgreSQL refuse a credential whose time is over. Raises: WrongAnswerError: it still works."""
    try:
        psycopg.connect(dsn.reveal()).close()
    except psycopg.OperationalError:
        return
    raise WrongAnswerError("a credential that was said to be gone still works")
