"""`@tool("orders-read", …)`: a function that gets its access with each call, and gives no secret away in its result."""

import contextlib
import functools
import inspect
import secrets
import traceback
from collections.abc import Callable, Generator
from typing import Any, Final, ParamSpec, TypeVar, cast

from controlplane.model.errors import ControlPlaneError
from controlplane.sdk.access import Access
from controlplane.sdk.lending import Lending, current_task, grant
from controlplane.sdk.refusals import OverError, worded

P = ParamSpec("P")
R = TypeVar("R")
_PARAMETER: Final = "access"


class ToolFailedError(ControlPlaneError):
    """The function failed with words that held an issued secret: they are told without it, and without a cause."""

    code = "tool-failed"


def tool(
    entitlement: str,
    *,
    intent: str,
    task: str | None = None,
    raises: type[Exception] | None = None,
    **options: Any,
) -> Callable[[Callable[P, R]], Callable[..., R]]:
    """Let each call of a function have a grant of its own; `options` are those of `grant`. Plain and `async` ones.

    The function takes a keyword `access`, which whoever calls it neither sees nor gives: a framework that makes a
    schema of its signature shows no such parameter to a model. The grant is finished before the result is handed
    over, and every issued secret in the result, or in what an exception would print, is replaced.

    Without `task`, and outside of `with task(…)`, each call is a task of its own. Errors of ours are raised as `raises`
    where it is given, with code, reasons and hint as the text: the kind that a framework shows to its model.
    """

    def asked(name: str) -> Lending:
        chosen = task or current_task() or f"{name}-{secrets.token_hex(6)}"
        return grant(entitlement, intent=intent, task=chosen, **options)

    def decorated(function: Callable[P, R]) -> Callable[..., R]:
        free = cast("Callable[..., Any]", function)
        name = function.__name__.strip("_")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def acalled(*args: Any, **named: Any) -> object:
                with _as(raises):
                    async with asked(name) as access:
                        try:
                            return access.redacted(await free(*args, **{**named, _PARAMETER: access}))
                        except Exception as error:
                            if (failed := _guarded(error, access)) is None:
                                raise
                        raise failed  # out here it has no context that would hold the secret

            return cast("Callable[..., R]", _without_access(acalled, function))

        @functools.wraps(function)
        def called(*args: Any, **named: Any) -> R:
            with _as(raises), asked(name) as access:
                try:
                    return access.redacted(free(*args, **{**named, _PARAMETER: access}))
                except Exception as error:
                    if (failed := _guarded(error, access)) is None:
                        raise
                raise failed  # as above
            raise AssertionError  # not reached: `_as` swallows nothing

        return _without_access(called, function)

    return decorated


@contextlib.contextmanager
def _as(kind: type[Exception] | None) -> Generator[None]:
    """Errors of ours as somebody else's kind, with all that they say."""
    try:
        yield
    except ControlPlaneError as error:
        if kind is None:
            raise
        raise kind(worded(error)) from None


def _guarded(error: Exception, access: Access) -> ToolFailedError | None:
    """One that says the same without a secret; None where nothing that it would print has one."""
    said = f"{type(error).__name__}: {error}"
    printed = "".join(traceback.format_exception(error))  # with its notes, and with what it came of
    try:
        return None if access.redacted(printed) == printed else ToolFailedError(access.redacted(said))
    except OverError:  # its secrets are forgotten, so nobody knows what to look for
        return ToolFailedError(f"{type(error).__name__}, when the access was over")


def _without_access(called: Callable[..., R], function: Callable[..., Any]) -> Callable[..., R]:
    signature = inspect.signature(function)
    if _PARAMETER not in signature.parameters:
        raise TypeError(f"{function.__name__} takes no parameter {_PARAMETER}: that is where it gets its credentials")
    kept = [parameter for name, parameter in signature.parameters.items() if name != _PARAMETER]
    called.__signature__ = signature.replace(parameters=kept)  # pyright: ignore[reportFunctionMemberAccess] # as functools.wraps does
    called.__annotations__ = {name: kind for name, kind in function.__annotations__.items() if name != _PARAMETER}
    return called
