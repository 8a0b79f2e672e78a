"""The group of one scope's logins: what a target calls those who hold the same revision of the same scope."""

import re
from dataclasses import dataclass

from controlplane.model.plan import of_grant

_MAX_NAME = 63  # bytes; PostgreSQL cuts longer names off without an error

_ROLE = re.compile(r"(?P<base>.+)(?P<rest>-[0-9a-f]{8}-[a-z][a-z0-9-]{0,15})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One scope's logins of one revision.

    Its name has 63 bytes at most. A long entitlement name is cut, which is safe: the revision is a digest over all
    of it.
    """

    prefix: str
    entitlement: str
    revision: str
    scope: str

    @property
    def name(self) -> str:
        """What the target calls it."""
        return self._with(self.revision)

    @property
    def siblings(self) -> str:
        """A regular expression for the groups of all revisions of this scope. Such names need no escaping."""
        return f"^{self._with('#' * len(self.revision))}$".replace("#", "[0-9a-f]")

    def _with(self, revision: str) -> str:
        rest = f"-{revision}-{self.scope}"
        return f"{self.prefix}-{self.entitlement}"[: _MAX_NAME - len(rest)] + rest


def group_of(role: str) -> str:
    """The name of the group behind a role in Vault, which is called like it but may be longer."""
    narrowed = of_grant(role)
    if narrowed is not None:  # a role of one grant makes members of the same group as every other one
        return group_of(narrowed[0])
    found = _ROLE.fullmatch(role)
    return role if found is None else found["base"][: _MAX_NAME - len(found["rest"])] + found["rest"]
