"""Static secrets: named fields of one secret in a KV (version 2) mount. Whoever has read one has it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, ClassVar, cast

from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, field_validator
from typing_extensions import override

from controlplane.model.canonical import JsonObject
from controlplane.model.duration import Duration
from controlplane.model.entitlement import Document, Placing, Revocability, Scope, distinct
from controlplane.model.lease import Ask, Credential, Response, Target
from controlplane.model.plan import Naming, Places, VaultObject
from controlplane.model.rotation import Rotation
from controlplane.model.secret import Secret
from controlplane.model.wording import explained

EXAMPLE = """\
name: gateway
engine: kv
path: payments/gateway
fields: [api_key]
"""

_FIELD = explained(
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$", "letters, digits and _ . - only, a letter, digit or _ first, at most 63"
)


_REREAD = timedelta(minutes=15)
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)
_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def _path(path: str) -> str:
    if not all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        raise ValueError(
            "write the path below the mount, as in payments/gateway: no pattern, no data/, no slash at the ends"
        )
    if path.startswith(("data/", "metadata/")):
        raise ValueError("leave data/ out: it is Vault's own, and put in front of every path")
    return path


class Random(Document):
    """Random letters and digits, which nobody has seen."""

    length: int = Field(ge=24, le=256, description="How many letters and digits.")


class Rotate(Document):
    """Replace every field of the scope when the grant ends.

    Only for a secret that is checked by somebody who reads it from this very path: replacing it here then ends it.
    """

    random: Random = Field(description="By random text.")
    reread: Duration = Field(
        le=_REREAD, description="Whoever checks the secret reads it from this path anew, at the latest after so long."
    )


class KvScope(Scope):
    """Some fields of one secret."""

    narrows: ClassVar[Mapping[str, Placing]] = {"path": Placing.SEGMENT}

    path: Annotated[
        str, Field(min_length=1, max_length=200, description="The secret, below the mount."), AfterValidator(_path)
    ]
    fields: tuple[Annotated[str, Field(pattern=_FIELD)], ...] = Field(
        min_length=1, max_length=32, description="The fields that are handed over; others stay in Vault."
    )
    rotate: Rotate | None = Field(
        default=None, description="What replaces these fields when the grant ends, where that ends the secret."
    )

    @property
    @override
    def rotation(self) -> Rotation | None:
        """All its fields."""
        if self.rotate is None:
            return None
        return Rotation(fields=self.fields, length=self.rotate.random.length, reread=self.rotate.reread)

    @property
    @override
    def secrets(self) -> frozenset[str]:
        """Each field by itself: to replace one leaves the others as they are."""
        return frozenset(f"{field} of {self.path}" for field in self.fields)

    @field_validator("fields")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return distinct(names, "a field is named twice")


@dataclass(frozen=True, slots=True)
class KvEngine:
    """Source: OpenBao docs, api/secret/kv/kv-v2."""

    word: str = "kv"
    scope_model: type[Scope] = KvScope
    revocability: Revocability = Revocability.LASTING
    example: str = EXAMPLE
    unasked: str = (
        "a static secret cannot be taken back: whoever has read this version has it until the target's changes"
    )
    mounting: JsonObject = field(default_factory=lambda: {"type": "kv", "options": {"version": "2"}})

    def places(self, mount: str) -> Places:
        """No roles and no leases: a policy is all that there is."""
        del mount
        return Places(roles=None, leases=None, holds=None)

    def roles(self, scope: Scope, naming: Naming, *, default: timedelta, maximum: timedelta) -> Sequence[VaultObject]:
        """None."""
        del scope, naming, default, maximum
        return ()

    def capabilities(self, scope: Scope, naming: Naming) -> Mapping[str, JsonObject]:
        """Reading the newest version. Vault's policies know no fields: the others go no further than `receive`."""
        return {self._path(scope, naming): {"capabilities": ["read"]}}

    def ask(self, scope: Scope, naming: Naming, *, ttl: timedelta) -> Ask:
        """A plain read."""
        del ttl
        return Ask(path=self._path(scope, naming), body=None)

    def receive(self, scope: Scope, response: Response) -> Credential:
        """The fields that the scope names; the principal is the path with the version that was read."""
        wanted = _own(scope)
        held, about = (_object(response.data.get(name)) for name in ("data", "metadata"))
        version = about.get("version")
        missing = sorted(set(wanted.fields) - set(held))
        if missing or not isinstance(version, int):
            raise ValueError(f"Vault answered without {', '.join(missing) or 'a version'}")
        return Credential(
            lease=response.lease,
            lease_ttl=None,
            principal=f"{wanted.path}@{version}",
            fields={name: Secret(_text(held[name])) for name in sorted(wanted.fields)},
        )

    def target(self, scope: Scope) -> Target:
        """Whatever takes the secret: Vault does not know it."""
        return Target(kind="kv", name=_own(scope).path)

    def reach(self, scope: Scope) -> Sequence[str]:
        """One sentence for each field, and one more where what was read stays good."""
        wanted = _own(scope)
        kept = [] if wanted.rotate else [f"may use what it has read of {wanted.path} from then on, whenever it wants"]
        return [*(f"may read {secret}" for secret in sorted(wanted.secrets)), *kept]

    def _path(self, scope: Scope, naming: Naming) -> str:
        return f"{naming.layout.mounts[self.word]}/data/{_own(scope).path}"


def _own(scope: Scope) -> KvScope:
    return cast("KvScope", scope)


def _object(value: object) -> dict[str, JsonValue]:
    """An object in an answer, which arrives as secret JSON text; empty where it is none."""
    if not isinstance(value, Secret):
        return {}
    try:
        return _OBJECT.validate_json(value.reveal())
    except ValueError:  # its text would quote the secret
        return {}


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)


ENGINE = KvEngine()
