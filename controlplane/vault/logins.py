"""Where a task logs in and reads its credentials; each call is made once, because each may make something."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from hvac.api.auth_methods import JWT, Token
from hvac.api.system_backend import Wrapping
from pydantic import BaseModel, Field, JsonValue

from controlplane.model.errors import NotSyncedError
from controlplane.model.grant import GrantId
from controlplane.model.lease import Accessor, Ask, LeaseId, Response, TaskToken, TokenFacts, Wrapped, unleased
from controlplane.model.plan import Layout
from controlplane.model.secret import Secret
from controlplane.vault.client import VaultClient, understood
from controlplane.vault.refusal import Refusal
from controlplane.vault.transport import VaultAdapter

GRANT_KEY: Final = "grant"
"""The metadata of a task token under which its grant's id stands."""


BEING_MADE: Final = timedelta(seconds=1)
"""How long Vault may need between naming a new token's accessor and having all of the token on disk."""
_NOBODY_S: Final = "nobody"


class VaultLogins:
    """Fits `ports.Logins`. `broker` looks tokens up; a task acts with its own token only."""

    def __init__(self, layout: Layout, broker: VaultClient, *, being_made: timedelta = BEING_MADE) -> None:
        self._mount = layout.auth_mount
        self._being_made = being_made
        self._broker = broker
        self._jwt: Any = JWT(adapter=VaultAdapter(broker.transport, None))
        self._tokens: Any = Token(adapter=broker.adapter)

    def login(self, role: str, assertion: Secret) -> TaskToken:
        """Log in once as `role` with a task JWT; see the port for the errors."""
        try:
            answer = self._jwt.jwt_login(role, assertion.reveal(), use_token=False, path=self._mount)
        except Refusal as refusal:
            if refusal.answered == HTTPStatus.BAD_REQUEST and refusal.says("could not be found"):
                raise NotSyncedError(f"Vault has no role {role} at auth/{self._mount}") from None
            raise
        auth = understood(_Auth, answer, "auth")
        return TaskToken(token=Secret(auth.client_token), accessor=Accessor(auth.accessor))

    def facts(self, accessor: Accessor) -> TokenFacts | None:
        """What Vault knows of the token; one that is being revoked, or is a zombie, has `num_uses` -1."""
        token = self._look_up(accessor)
        return None if token is None else token.facts()

    def accessors_of(self, grant: GrantId) -> Sequence[Accessor]:
        """Accessors of task tokens of this grant: asks for every accessor in the server, one by one."""
        listed = [Accessor(accessor) for accessor in self._broker.list("auth/token/accessors")]
        # Looking at a token whose login has not come to its end makes Vault delete it, whoever's it is.
        time.sleep(self._being_made.total_seconds())
        found: list[Accessor] = []
        for accessor in listed:
            token = self.task_token(accessor)
            if token is not None and token.metadata.get(GRANT_KEY) == grant:
                found.append(accessor)
        return found

    def task_token(self, accessor: Accessor) -> TokenFacts | None:
        """What Vault knows of the token if a task logged in to it; None where it ended, or is nothing of ours.

        Never ask this of an accessor that was listed just now: see `accessors_of`.
        """
        return self.looked_up(accessor)[1]

    def looked_up(self, accessor: Accessor) -> tuple[bool, TokenFacts | None]:
        """Whether Vault knows a token behind the accessor at all, and what it is if a task logged in to it."""
        token = self._look_up(accessor)
        ours = token is not None and token.path == f"auth/{self._mount}/login"
        return token is not None, token.facts() if token is not None and ours else None

    def read(self, token: Secret, ask: Ask) -> Response:
        """Make one credential with the task's token."""
        task = VaultAdapter(self._broker.transport, lambda: token)
        answer = task.get(ask.path) if ask.body is None else task.put(ask.path, json=dict(ask.body))
        made = understood(_Made, answer)
        # A token comes as `auth`, everything else as `data`. Source: OpenBao docs, api/auth/token, "Create token".
        data = made.auth or made.data or {}
        return Response(
            lease=LeaseId(made.lease_id) if made.lease_id else unleased(ask.path, made.request_id),
            lease_ttl=timedelta(seconds=made.lease_duration),
            data={name: _secret(value) for name, value in data.items()},
        )

    def wrap(self, token: Secret, payload: Mapping[str, Mapping[str, Secret]], ttl: timedelta) -> Wrapped:
        """Wrap `payload` with the task's token. Revoking that token later leaves the wrapping token alive."""
        api: Any = Wrapping(adapter=VaultAdapter(self._broker.transport, lambda: token))
        shown = {scope: {name: secret.reveal() for name, secret in fields.items()} for scope, fields in payload.items()}
        wrapped = understood(_WrapInfo, api.wrap(shown, ttl=int(ttl.total_seconds())), "wrap_info")
        return Wrapped(
            token=Secret(wrapped.token), accessor=Accessor(wrapped.accessor), ttl=timedelta(seconds=wrapped.ttl)
        )

    def _look_up(self, accessor: Accessor) -> "_Token | None":
        try:
            return understood(_Token, self._tokens.lookup_accessor(accessor), "data")
        except Refusal as refusal:
            if refusal.says("invalid accessor"):
                return None
            # A login that broke off leaves an accessor without a token, for ever. Vault refuses it in the words in
            # which it refuses somebody who may not look at all, so ask which of the two it was.
            if refusal.answered == HTTPStatus.FORBIDDEN and self._may_look():
                return None
            raise

    def _may_look(self) -> bool:
        try:
            self._tokens.lookup_accessor(_NOBODY_S)
        except Refusal as refusal:
            return refusal.says("invalid accessor")
        return False


class _Auth(BaseModel):
    client_token: str = Field(min_length=1)
    accessor: str = Field(min_length=1)


class _Token(BaseModel):
    """OpenBao docs, api/auth/token, "Lookup a token (accessor)"; in seconds."""

    accessor: str
    type: str
    orphan: bool
    path: str
    policies: list[str]
    ttl: int
    explicit_max_ttl: int
    period: int = 0
    num_uses: int
    creation_time: int
    meta: dict[str, str] | None = None

    def facts(self) -> TokenFacts:
        return TokenFacts(
            accessor=Accessor(self.accessor),
            kind=self.type,
            orphan=self.orphan,
            policies=frozenset(self.policies),
            ttl=timedelta(seconds=self.ttl),
            explicit_max_ttl=timedelta(seconds=self.explicit_max_ttl),
            period=timedelta(seconds=self.period),
            num_uses=self.num_uses,
            metadata=self.meta or {},
            created_at=datetime.fromtimestamp(self.creation_time, UTC),
        )


class _Made(BaseModel):
    request_id: str = Field(min_length=1)
    lease_id: str
    lease_duration: int
    data: dict[str, JsonValue] | None = None
    auth: dict[str, JsonValue] | None = None


class _WrapInfo(BaseModel):
    token: str = Field(min_length=1)
    accessor: str = Field(min_length=1)
    ttl: int


def _secret(value: JsonValue) -> Secret | int | bool | list[Secret] | None:
    """`value` with every text in it made a secret; what has no simple form becomes secret JSON text."""
    match value:
        case str():
            return Secret(value)
        case bool() | int() | None:
            return value
        case list():
            return [Secret(item if isinstance(item, str) else json.dumps(item)) for item in value]
        case _:
            return Secret(json.dumps(value))
