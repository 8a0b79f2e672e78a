"""`.shorthold/`: the one directory of a project's embedded servers, closed to everybody else (0700)."""

import fcntl
import json
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from controlplane.dev import loopback
from controlplane.dev.process import until
from controlplane.model.errors import LocalServerError
from controlplane.model.secret import Secret

DIRECTORY = ".shorthold"
_PARTS = frozenset({"openbao", "postgres", "keys"})
_PORTS = TypeAdapter(dict[str, Annotated[int, Field(strict=True, ge=1, le=65535)]])
_FACTS = TypeAdapter(dict[str, str | None])


@dataclass(frozen=True, slots=True)
class Home:
    """The directory itself. Nothing is made before `make`."""

    directory: Path

    @classmethod
    def of(cls, project: Path) -> "Home":
        """The home of the project in `project`; it need not exist yet."""
        return cls(project.resolve() / DIRECTORY)

    @property
    def exists(self) -> bool:
        """Whether anything was ever started here."""
        return self._state.exists()

    def make(self) -> None:
        """Make the directory, or accept it as it stands. Repeating it changes nothing.

        Raises: LocalServerError: it cannot be written, is not ours, is open to others, or is a copy of another's.
        """
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            found = self.directory.lstat()
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise LocalServerError(f"{self.directory} must be yours and closed to others (mode 0700)")
            if not self.exists:
                if left := sorted(path.name for path in self.directory.iterdir() if path.name in _PARTS):
                    raise LocalServerError(
                        f"{self._state} is missing, but {', '.join(left)} in {self.directory} is not: put it back, "
                        "or remove the whole directory to begin anew"
                    )
                write_private(self.directory / ".gitignore", "*\n")  # keys are never committed by mistake
                self._save({"id": secrets.token_hex(8), "home": str(self.directory), "ports": {}, "facts": {}})
        except OSError as error:
            raise LocalServerError(f"{self.directory} cannot be written: {error.strerror}") from None
        state = self._load()
        if state["home"] != str(self.directory):
            if Path(state["home"]).exists():
                raise LocalServerError(f"{self.directory} is a copy of {state['home']}: its servers would be shared")
            self._save({**state, "home": str(self.directory)})

    @property
    def id(self) -> str:
        """16 hex digits that name this home on this machine."""
        return str(self._load()["id"])

    def part(self, name: str) -> Path:
        """The directory (0700) of one part of the stack."""
        path = self.directory / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def known_port(self, name: str) -> int:
        """The port that `name` has, or had last. Raises: LocalServerError: it was never started here."""
        port = self._load()["ports"].get(name)
        if port is None:
            raise LocalServerError(f"{name} was never started in {self.directory}: run `shorthold dev up`")
        return port

    def fresh_port(self, name: str) -> int:
        """A port for a server that is to be started now: the one it had last if it is free, else a new one."""
        state = self._load()
        last = state["ports"].get(name)
        if last is None or not loopback.is_free(last):
            state["ports"][name] = loopback.free_port(but=set(state["ports"].values()))
            self._save(state)
        return state["ports"][name]

    def remember(self, name: str, value: str | None) -> None:
        """Keep a fact about the last `dev up` (no secret), or forget it."""
        state = self._load()
        state["facts"] = {**state["facts"], name: value}
        self._save(state)

    def recall(self, name: str) -> str | None:
        """What was kept, None for nothing."""
        return self._load()["facts"].get(name)

    @contextmanager
    def lock(self, patience: timedelta = timedelta(minutes=2)) -> Generator[None]:
        """Only one command at a time starts or stops servers here; another one waits for it.

        Raises: LocalServerError: patience ran out.
        """
        held = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)  # close-on-exec: no server inherits it
        try:
            if not until(lambda: _locked(held), patience):
                raise LocalServerError(f"another `shorthold dev` is at work in {self.directory}")
            yield
        finally:
            os.close(held)

    @property
    def _state(self) -> Path:
        return self.directory / "state.json"

    def _load(self) -> dict[str, Any]:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return {
                "id": str(state["id"]),
                "home": str(state["home"]),
                "ports": _PORTS.validate_python(state["ports"]),
                "facts": _FACTS.validate_python(state["facts"]),
            }
        except FileNotFoundError:
            raise LocalServerError(
                f"nothing was ever started in {self.directory.parent}: run `shorthold dev up`"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = error.strerror if isinstance(error, OSError) else "it is not as `dev up` writes it"
            raise LocalServerError(
                f"{self._state} cannot be read: {what}. Put it back; or stop everything with `shorthold dev down`, "
                f"remove {self.directory} and begin anew"
            ) from None

    def _save(self, state: dict[str, Any]) -> None:
        write_private(self._state, json.dumps(state, indent=2))


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file (0600) whole or not at all. What stood there is replaced."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def kept_password(path: Path) -> Secret:
    """The password in `path` (0600); made up and written there the first time."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(24))
    return Secret(path.read_text(encoding="utf-8").strip())
