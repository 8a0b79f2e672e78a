"""What every way of getting a credential has in common, so that one race can run them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Held:
    """A credential in an agent's hand. `handle` ends it; the password is for trying it and never printed."""

    username: str
    handle: str
    password: str

    def __repr__(self) -> str:
        return f"Held({self.username!r})"


class Agent(Protocol):
    """One agent with its own connections."""

    def prepare(self, grants: int) -> None:
        """Get from its own issuer what it needs to ask for so many grants; before the clock starts."""
        ...

    def ask(self) -> Held:
        """Everything until the credential is in hand. Raises: WrongAnswerError."""
        ...

    def finish(self, held: Held) -> None:
        """Everything until the end is acknowledged. Raises: WrongAnswerError."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Watch(Protocol):
    """Sees credentials go. Instants are seconds of `time.time()`."""

    def expect(self, held: Held, finished_at: float) -> None:
        """The finish of this credential was sent at that instant."""
        ...

    def seen_gone(self) -> Sequence[tuple[float, float]]:
        """For every credential expected: when its finish was sent, and when it was gone. Waits for the last.

        Raises: WrongAnswerError: one does not go.
        """
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


class Way(Protocol):
    """One way of getting a credential and giving it back."""

    @property
    def name(self) -> str:
        """One word."""
        ...

    def agent(self) -> Agent:
        """A new agent, logged in at its own issuer already."""
        ...

    def watch(self) -> Watch:
        """A new watch for one slice."""
        ...
