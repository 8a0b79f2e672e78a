"""What a check found, and what to do about it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from controlplane.model.errors import ControlPlaneError


class Grade(IntEnum):
    """How bad it is; also the exit status of `doctor`, which is that of the worst finding."""

    SOUND = 0
    ADVICE = 1  # it works; somebody should look at it
    BROKEN = 2  # grants or revocations fail, or nobody could tell


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One answer. `do` is empty where nothing is to be done."""

    check: str
    grade: Grade
    detail: str
    do: str = ""


Check = Callable[[], Iterable[Finding]]


def examine(checks: Iterable[tuple[str, Check]]) -> Iterator[Finding]:
    """Run every check; one that fails with an error of ours is a finding with that error's own hint."""
    for name, check in checks:
        try:
            yield from check()
        except ControlPlaneError as error:
            yield Finding(check=name, grade=Grade.BROKEN, detail=error.detail, do=error.hint)


def sound(check: str, detail: str) -> Finding:
    """All is well."""
    return Finding(check=check, grade=Grade.SOUND, detail=detail)


def advice(check: str, detail: str, do: str) -> Finding:
    """It works, and somebody should look at it."""
    return Finding(check=check, grade=Grade.ADVICE, detail=detail, do=do)


def broken(check: str, detail: str, do: str) -> Finding:
    """It does not work."""
    return Finding(check=check, grade=Grade.BROKEN, detail=detail, do=do)
