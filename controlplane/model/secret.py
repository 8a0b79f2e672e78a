"""A secret in memory: it can be used, but not printed, copied, pickled, serialised or compared slowly."""

import hmac
from typing import Final, Never

_MASK: Final = "Secret(…)"


class Secret:
    """A string that only `reveal()` gives back.

    A plain class on purpose: `dataclasses.asdict` walks into dataclasses and returns their values, and
    pydantic's `SecretStr` pickles in clear. Two secrets compare in constant time.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value. Every call is a place to look at in a review."""
        return self._value

    def __repr__(self) -> str:
        return _MASK

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return _MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        # surrogatepass: text from JSON may hold half a character, and an encoding error would carry the value.
        mine, theirs = (value.encode(errors="surrogatepass") for value in (self._value, other._value))
        return hmac.compare_digest(mine, theirs)

    __hash__ = None  # pyright: ignore[reportAssignmentType] # a dict of secrets would compare them by hash

    def __reduce__(self) -> Never:
        raise TypeError("a Secret is never pickled or copied")

    def __copy__(self) -> Never:
        raise TypeError("a Secret is never copied")

    def __deepcopy__(self, memo: object) -> Never:
        raise TypeError("a Secret is never copied")
