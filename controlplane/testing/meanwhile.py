"""What runs beside its caller, in a known order: wholly before what the caller does next, or wholly after it."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")


def at_once(call: Callable[[], T]) -> Callable[[], T]:
    """Fits Meanwhile: `call` has come to its end before the caller goes on. What kills it kills the caller too."""
    try:
        found = call()
    except Exception as error:  # noqa: BLE001 # it is raised where somebody waits for the call
        failure = error

        def fail() -> NoReturn:
            raise failure

        return fail
    return lambda: found


def at_the_latest(call: Callable[[], T]) -> Callable[[], T]:
    """Fits Meanwhile: `call` begins when the caller waits for it."""
    return call
