"""One line to one target: the prober's login as long as it is good, its connection as long as it holds."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

from controlplane.model.errors import TargetUnavailableError
from controlplane.model.secret import Secret
from controlplane.ports import Clock

TIMEOUT = 5
"""Seconds for connecting, for the one question, and for waiting until somebody else's is answered."""

_NEW_LOGIN = timedelta(minutes=1)
"""A login with which nobody gets in is replaced no sooner: each one is a user in the target for an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProberLogin:
    """The prober's own credential, issued by Vault; to be renewed at `renew_at`."""

    username: str
    password: Secret
    renew_at: datetime


NewLogin = Callable[[str], ProberLogin]
"""Asks Vault for a login to the connection of this name."""

Connection = TypeVar("Connection")
Answer = TypeVar("Answer")


class Driver(Protocol[Connection]):
    """How a kind of target is spoken to."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What `connect` and a question raise when the target does not answer as it should."""
        ...

    def connect(self, login: ProberLogin) -> Connection:
        """A connection, within `TIMEOUT`."""
        ...

    def close(self, connection: Connection) -> None:
        """Close it. Never raises."""
        ...


class Line(Generic[Connection]):
    """Opened when first asked, and kept; safe for threads. `what` names it in errors: `postgresql orders`."""

    def __init__(self, what: str, name: str, driver: Driver[Connection], login: NewLogin, clock: Clock) -> None:
        self._what, self._name, self._driver, self._new_login, self._clock = what, name, driver, login, clock
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._login: ProberLogin | None = None
        self._login_at: datetime | None = None
        self._worked = False

    def ask(self, question: Callable[[Connection], Answer]) -> Answer:
        """The answer to `question`, which must end within `TIMEOUT` by itself.

        Raises: TargetUnavailableError: no login, or no answer in time.
        """
        with self._alone():
            kept = self._connection is not None
            try:
                return question(self._connected())
            except self._driver.errors as error:
                self._drop()
                if not kept:
                    raise self._unavailable(error) from None
            try:  # the kept connection had died: ask once more on a new one
                return question(self._connected())
            except self._driver.errors as error:
                self._drop()
                raise self._unavailable(error) from None

    def close(self) -> None:
        """Close its connection."""
        with self._alone():
            self._drop()

    @contextmanager
    def _alone(self) -> Generator[None]:
        # Whoever holds the line is done within two connects and two statements; waiting longer would only add
        # threads to a target that does not answer.
        if not self._lock.acquire(timeout=TIMEOUT):
            raise TargetUnavailableError(f"{self._what} is slow: others are still asking it")
        try:
            yield
        finally:
            self._lock.release()

    def _connected(self) -> Connection:
        now = self._clock.now()
        if self._login is None or now >= self._login.renew_at:
            self._drop()
            self._login, self._login_at, self._worked = self._new_login(self._name), now, False
        if self._connection is None:
            try:
                self._connection = self._driver.connect(self._login)
            except self._driver.errors:
                # It may be that this user is gone: next time with a new one. One that worked is replaced at once: it
                # went with the broker's token, or somebody removed it, and what it was to prove waits for it.
                if self._worked or (self._login_at is not None and now >= self._login_at + _NEW_LOGIN):
                    self._login = None
                raise
            self._worked = True
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._driver.close(self._connection)
        self._connection = None

    def _unavailable(self, error: Exception) -> TargetUnavailableError:
        # A driver's own words may quote what it sent; the class says enough.
        return TargetUnavailableError(f"{self._what} did not answer ({type(error).__name__})")
