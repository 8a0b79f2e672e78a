"""Cut with nothing but a Vault token: no store and no control plane, so only what Vault shows is known.

A grant is its task token here, as the token's metadata tells it. A lease tells no more than its role and when it was
made; it hangs from a token of that role which logged in shortly before. One that no living token can have made is
nobody's: the reconciler would end it on sight, and so does this.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from controlplane.model.canonical import instant
from controlplane.model.errors import InvalidSelectionError, VaultRefusedError, VaultUnavailableError
from controlplane.model.lease import LeaseFacts, LeaseId, TokenFacts
from controlplane.model.selection import Selectable, Selection, Selector, parse_selection
from controlplane.ports import Leases, Meanwhile
from controlplane.selectors import selectors

TOLD: Final = ("entitlement", "grant", "intent", "issuer", "revision", "subject", "task")
"""What a task token's metadata tells, and so all that can be selected by."""
_GRANT: Final = Selector(word="grant", about="the grant's id", example="grant=gr_…")

_BATCH: Final = 64
"""Calls that are begun together."""
_TRIES: Final = 4
"""Looks without any change, after which what is left counts as resisting."""
_SKEW: Final = timedelta(seconds=1)
"""Vault tells when a token was made in whole seconds."""
_AGAIN: Final = timedelta(seconds=1)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A lease under a role of ours. `login` is the JWT role that whoever read it had logged in as.

    `grant` is None where the role serves every grant of the revision.
    """

    facts: LeaseFacts
    login: str
    entitlement: str
    revision: str
    grant: str | None = None

    @property
    def path(self) -> str:
        """Where the credential was read."""
        return self.facts.id.rpartition("/")[0]


One = TypeVar("One", TokenFacts, Held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Everything of ours in Vault: living task tokens, and every lease; `unseen` says where one may not look, and why.

    The leases were listed first: whoever made one of them has a token among these, or has none any more.
    """

    tokens: Sequence[TokenFacts]
    leases: Sequence[Held]
    unseen: Mapping[str, str] = field(default_factory=dict[str, str])


class Sight(Protocol):
    """What the token in hand can see."""

    def look(self) -> Looked:
        """Look at everything now. Takes its time, so that no login is disturbed.

        Raises: VaultUnavailableError, VaultRefusedError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What is selected and still there: task tokens, and leases that no living token can have made.

    `doubtful` are leases beyond those that the living tokens of their role account for: one of these is nobody's, and
    Vault does not tell which.
    """

    tokens: Sequence[TokenFacts]
    strays: Sequence[Held]
    doubtful: Sequence[Held]
    unseen: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        """What there is to end: accessors and lease ids."""
        return frozenset([*(token.accessor for token in self.tokens), *(held.facts.id for held in self.strays)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of one grant, or of a lease that is nobody's (`grant` is empty). `name` is its accessor or id.

    `verified`: Vault itself, asked anew, has neither its token nor a lease of it. Of the target that says nothing.
    """

    name: str
    grant: str
    subject: str
    entitlement: str
    task: str
    verified: bool
    why: str
    todo: str


def selection_of_tokens(text: str) -> Selection:
    """The selection that `text` writes, of what tokens tell.

    Raises: InvalidSelectionError: it is none, or asks what they do not tell.
    """
    wanted = parse_selection(text, {**selectors(), _GRANT.word: _GRANT})
    if beyond := [term.key for term in wanted.terms if term.key not in TOLD]:
        raise InvalidSelectionError(
            f"Vault's tokens do not tell {', '.join(beyond)}; without a control plane select by {', '.join(TOLD)}, "
            "or everything"
        )
    return wanted


def together(meanwhile: Meanwhile, call: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What `call` gives for each, several at once, in order. Whoever stops the command waits for one batch only."""
    found: list[Result] = []
    for start in range(0, len(items), _BATCH):
        begun = [meanwhile(lambda item=item: call(item)) for item in items[start : start + _BATCH]]
        found += [wait() for wait in begun]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CutDirect:
    """End what is selected and see that it is gone from Vault. Repeating it goes on where the last one stopped.

    `settling` is how long after its login a task may still have read a credential.
    """

    sight: Sight
    leases: Leases
    meanwhile: Meanwhile
    pause: Callable[[timedelta], object]
    settling: timedelta

    def look(self, wanted: Selection) -> Found:
        """What is there of it now; nothing is changed. Raises: VaultUnavailableError, VaultRefusedError."""
        looked = self.sight.look()
        made = _Made(looked.tokens, self.settling)
        meant = [held for held in looked.leases if _may_mean(wanted, held)]
        strays = [held for held in meant if held.facts.ttl <= timedelta(0) or not made.accounts_for(held)]
        there = {held.facts.id for held in strays}
        return Found(
            tokens=[token for token in looked.tokens if wanted.selects(_told(token))],
            strays=strays,
            doubtful=made.beyond([held for held in looked.leases if held.facts.id not in there]),
            unseen=looked.unseen,
        )

    def __call__(self, wanted: Selection, found: Found, told: Callable[[int, int], None]) -> Sequence[Fate]:
        """End what was found, and what comes to it meanwhile, until nothing is left or nothing changes any more.

        `told` hears how many are gone, of how many. Raises: VaultUnavailableError, VaultRefusedError: Vault does not
        say what is left; run it again.
        """
        met: dict[str, TokenFacts | Held] = {}
        failed: dict[str, str] = {}
        unchanged = 0
        while True:
            met |= {token.accessor: token for token in found.tokens} | {held.facts.id: held for held in found.strays}
            told(len(met) - len(found.names), len(met))
            if not found.names or unchanged == _TRIES:
                return self._fates(met, found, failed)
            failed = self._each(found.tokens, self._end_token) | self._each(found.strays, self._end_lease())
            before, found = found, self._look_again(wanted)
            unchanged = unchanged + 1 if before.names <= found.names else 0

    def _look_again(self, wanted: Selection) -> Found:
        for _ in range(_TRIES):
            try:
                return self.look(wanted)
            except VaultUnavailableError:  # a new leader is chosen, or there is much to do
                self.pause(_AGAIN)
        return self.look(wanted)

    def _end_token(self, token: TokenFacts) -> None:
        self.leases.revoke_token(token.accessor)

    def _end_lease(self) -> "Callable[[Held], None]":
        silent: set[str] = set()

        def end(held: Held) -> None:
            if held.path in silent:
                return  # one target that hangs does not keep the others waiting, lease by lease
            try:
                self.leases.revoke(held.facts.id)
            except VaultUnavailableError:
                silent.add(held.path)
                raise

        return end

    def _each(self, items: Sequence[One], end: Callable[[One], None]) -> dict[str, str]:
        """End all of them, several at once; what was said by those that failed."""

        def isolated(item: One) -> str:
            try:
                end(item)
            except (VaultUnavailableError, VaultRefusedError) as error:
                return error.detail
            return ""

        said = together(self.meanwhile, isolated, items)
        return {_name(item): detail for item, detail in zip(items, said, strict=True) if detail}

    def _fates(self, met: Mapping[str, TokenFacts | Held], found: Found, failed: Mapping[str, str]) -> Sequence[Fate]:
        alive = {token.accessor for token in found.tokens}
        tokens = [one for one in met.values() if isinstance(one, TokenFacts)]
        fates = [self._of_grant(token, found, alive=token.accessor in alive, failed=failed) for token in tokens]
        resisting, told = {held.facts.id: held for held in found.strays}, _Made(tokens, self.settling)
        for name, one in met.items():
            if isinstance(one, TokenFacts) or told.accounts_for(one):
                continue  # a lease that can be a grant's is told with the grant
            left = resisting.get(LeaseId(name))
            fates.append(_fate(one) if left is None else _fate(left, *_resists(left, failed)))
        return fates

    def _of_grant(self, token: TokenFacts, found: Found, *, alive: bool, failed: Mapping[str, str]) -> Fate:
        made = _Made([token], self.settling)
        if alive:
            return _fate(token, failed.get(token.accessor, "Vault still knows its token"), _alive_until(token))
        if (held := next(filter(made.accounts_for, found.strays), None)) is not None:
            return _fate(token, *_resists(held, failed))
        if (held := next(filter(made.accounts_for, found.doubtful), None)) is not None:
            return _fate(
                token,
                f"{held.path} has more leases than living tokens account for, and Vault does not tell whose they are",
                f"If others may end, too: the same with -l entitlement={token.metadata.get('entitlement')}.",
            )
        if blind := "; ".join(f"{path}: {why}" for path, why in found.unseen.items()):
            return _fate(token, f"its token is gone; its leases cannot be looked at: {blind}", _UNSEEN)
        return _fate(token)


class _Made:
    """Which living tokens can have made a lease."""

    def __init__(self, tokens: Iterable[TokenFacts], settling: timedelta) -> None:
        self._settling = settling
        self._made: dict[str, list[datetime]] = defaultdict(list)
        for token in tokens:
            login = token.metadata.get("role", "")
            self._made[login].append(token.created_at)
            self._made[f"{login} {token.metadata.get('grant', '')}"].append(token.created_at)
        for instants in self._made.values():
            instants.sort()

    def accounts_for(self, held: Held) -> bool:
        """Whether any of them can."""
        instants = self._of(held)
        at = bisect_left(instants, held.facts.issued_at - self._settling)
        return at < len(instants) and instants[at] <= held.facts.issued_at + _SKEW

    def beyond(self, leases: Iterable[Held]) -> Sequence[Held]:
        """Leases that are left over when each token is given one at every path, the earliest it can have made."""
        left: list[Held] = []
        at: dict[str, int] = defaultdict(int)
        for held in sorted(leases, key=lambda held: held.facts.issued_at):
            instants, place = self._of(held), at[held.path]
            while place < len(instants) and instants[place] < held.facts.issued_at - self._settling:
                place += 1
            taken = place < len(instants) and instants[place] <= held.facts.issued_at + _SKEW
            at[held.path] = place + taken
            left += [] if taken else [held]
        return left

    def _of(self, held: Held) -> Sequence[datetime]:
        return self._made.get(held.login if held.grant is None else f"{held.login} {held.grant}", ())


def _told(token: TokenFacts) -> Selectable:
    return Selectable(known={key: frozenset({token.metadata[key]}) for key in TOLD if key in token.metadata})


def _may_mean(wanted: Selection, held: Held) -> bool:
    """Whether nothing that the lease's role tells speaks against it."""
    told = {"entitlement": held.entitlement, "revision": held.revision}
    told |= {} if held.grant is None else {"grant": held.grant}
    known = Selectable(known={key: frozenset({value}) for key, value in told.items()})
    return all(term.holds(known) for term in wanted.terms if term.key in told)


def _name(item: TokenFacts | Held) -> str:
    return item.accessor if isinstance(item, TokenFacts) else item.facts.id


def _fate(one: TokenFacts | Held, why: str = "", todo: str = "") -> Fate:
    """Of what resists: why, and what to do. Of what is gone: what nobody has asked yet, and who can."""
    told = one.metadata if isinstance(one, TokenFacts) else {"entitlement": one.entitlement, "grant": one.grant or ""}
    grant = told.get("grant", "")
    later = f"shorthold grant show {grant}" if grant else "shorthold doctor"
    return Fate(
        name=_name(one),
        grant=grant,
        subject=told.get("subject", ""),
        entitlement=told.get("entitlement", ""),
        task=told.get("task", ""),
        verified=not why,
        why=why or "gone from Vault; unverified at the target, which only a control plane can ask",
        todo=todo or f"When one runs again, its receipt proves it: {later}",
    )


def _resists(held: Held, failed: Mapping[str, str]) -> tuple[str, str]:
    said = held.facts.revoke_error or failed.get(held.facts.id) or "it is being revoked"
    todo = "Bring the target back: Vault tries again by itself, and this command does at once."
    if held.facts.irrevocable:
        todo = "Vault has given it up: end the login at the target by hand, mend what Vault met, and run this again."
    return f"Vault still holds lease {held.facts.id}: {said}", todo


def _alive_until(token: TokenFacts) -> str:
    return f"Run this again. It ends by itself at {instant(token.created_at + token.explicit_max_ttl)}."


_UNSEEN = "Use a responder's token of this release: `shorthold vault bootstrap` renews what a responder may."
