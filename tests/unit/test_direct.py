"""A cut with a Vault token alone: what is selected ends, nothing else does, what resists is named (P2, P3, P10)."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from controlplane.incident.direct import CutDirect, Fate, Found, Looked, selection_of_tokens
from controlplane.model.errors import InvalidSelectionError, VaultRefusedError, VaultUnavailableError
from controlplane.model.grant import Grant, TaskId
from controlplane.model.lease import Accessor
from controlplane.ports import Answer
from controlplane.testing.entitlements import LAYOUT, compiled_entitlement
from controlplane.testing.meanwhile import at_once
from controlplane.testing.plane import FakePlane
from controlplane.testing.sight import FakeSight

SETTLING = timedelta(seconds=130)


@dataclass
class Responder:
    """Whoever has a Vault token and nothing else."""

    plane: FakePlane = field(
        default_factory=lambda: FakePlane(compiled_entitlement(), compiled_entitlement(entitlement="orders-other"))
    )

    def ask(self, task: str, entitlement: str = "orders-read") -> Grant:
        return self.plane.ask(task=TaskId(task), entitlement=entitlement).grant

    def look(self) -> Looked:
        return FakeSight(self.plane.vault, LAYOUT).look()

    @property
    def cutting(self) -> CutDirect:
        return CutDirect(
            sight=self,
            leases=self.plane.vault.leases,
            meanwhile=at_once,
            pause=self.plane.clock.advance,
            settling=SETTLING,
        )

    def found(self, text: str) -> Found:
        return self.cutting.look(selection_of_tokens(text))

    def cut(self, text: str) -> dict[str, Fate]:
        fates = self.cutting(selection_of_tokens(text), self.found(text), lambda _gone, _of: None)
        return {one.grant or one.name: one for one in fates}

    def alive(self) -> set[str]:
        return {token.metadata["task"] for token in self.look().tokens}

    def users(self) -> int:
        return len(self.plane.vault.target.users)


@pytest.fixture
def responder() -> Responder:
    return Responder()


def test_i02_what_is_selected_ends_and_nobody_elses_grant_does(responder: Responder) -> None:
    one, two = responder.ask("T-1"), responder.ask("T-2")
    responder.ask("T-3", "orders-other")
    assert {token.metadata["task"] for token in responder.found("task in (T-1, T-2)").tokens} == {"T-1", "T-2"}
    fates = responder.cut("task in (T-1, T-2)")
    assert {one.id, two.id} == set(fates)
    for fate in fates.values():
        assert fate.verified
        assert "unverified at the target" in fate.why
        assert fate.todo.endswith(f"shorthold grant show {fate.grant}")
    assert (responder.alive(), responder.users()) == ({"T-3"}, 1)
    assert not responder.found("task in (T-1, T-2)").names
    responder.cut("all")
    assert (responder.alive(), responder.users()) == (set(), 0)


@pytest.mark.parametrize("text", ["grant={}", "subject={1},task=T-1", "entitlement=orders-read,task!=T-2", "!parent"])
def test_selected_is_by_what_a_token_tells_and_what_it_does_not_tell_is_refused_by_name(
    responder: Responder, text: str
) -> None:
    one = responder.ask("T-1")
    responder.ask("T-2")
    if text == "!parent":
        with pytest.raises(InvalidSelectionError, match="no key parent"):
            selection_of_tokens(text)
        with pytest.raises(InvalidSelectionError, match=r"do not tell owner, label\.team; .* select by entitlement"):
            selection_of_tokens("owner=a,task=T-1,label.team=b")
        return
    (token,) = responder.found(text.format(one.id, one.subject)).tokens
    assert token.metadata["grant"] == one.id


def test_p3_what_resists_is_named_and_the_same_command_ends_it_once_the_target_is_back(responder: Responder) -> None:
    grant = responder.ask("T-1")
    responder.plane.vault.target.down = True
    fate = responder.cut(f"grant={grant.id}")[grant.id]
    assert not fate.verified
    assert fate.why.startswith("Vault still holds lease ")
    assert "the target does not answer" in fate.why
    assert fate.todo.startswith("Bring the target back")
    assert responder.users() == 1
    responder.plane.vault.faults.given_up = True
    (left,) = responder.cut("task=T-1").values()  # its token is gone, so nobody's name stands on the lease any more
    assert (left.grant, left.verified) == ("", False)
    assert left.todo.startswith("Vault has given it up: end the login at the target by hand")
    responder.plane.vault.target.down = False
    assert all(one.verified for one in responder.cut("task=T-1").values())
    assert responder.users() == 0


def test_a_lease_that_no_living_token_can_have_made_ends_unless_its_role_speaks_against_it(
    responder: Responder,
) -> None:
    grant = responder.ask("T-1")
    responder.plane.clock.advance(SETTLING * 2)
    responder.plane.vault.plant_lease(grant.paths[0], "v-nobody", timedelta(hours=1))
    assert not responder.found("entitlement=orders-other").names
    (stray,) = responder.found("task=T-9").strays
    assert responder.cut("task=T-9")[stray.facts.id].verified
    assert (responder.alive(), responder.users()) == ({"T-1"}, 1)


def test_y12_a_zombies_leases_end_and_are_not_blamed_on_those_who_live(responder: Responder) -> None:
    dead = responder.ask("T-1")
    responder.plane.clock.advance(SETTLING * 2)
    responder.ask("T-2")
    assert dead.accessor is not None
    responder.plane.vault.make_zombie(dead.accessor)
    (stray,) = responder.found("task=T-1").strays
    assert stray.path == dead.paths[0]
    assert all(one.verified for one in responder.cut("task=T-1").values())
    assert (responder.alive(), responder.users()) == ({"T-2"}, 1)


def test_where_vault_does_not_tell_whose_a_lease_is_it_is_left_alone_and_said(responder: Responder) -> None:
    first = responder.ask("T-1")
    responder.ask("T-2")
    responder.plane.vault.plant_lease(first.paths[0], "v-nobody", timedelta(hours=1))
    fate = responder.cut("task=T-1")[first.id]
    assert not fate.verified
    assert "more leases than living tokens account for" in fate.why
    assert "-l entitlement=orders-read" in fate.todo
    assert responder.users() == 2
    assert all(one.verified for one in responder.cut("entitlement=orders-read").values())
    assert responder.users() == 0


def test_what_is_granted_while_it_runs_is_cut_too(responder: Responder, monkeypatch: pytest.MonkeyPatch) -> None:
    responder.ask("T-1")
    looks = iter([None, lambda: responder.ask("T-2")])
    look = responder.look

    def meanwhile_granted() -> Looked:
        if (granting := next(looks, None)) is not None:
            granting()
        return look()

    monkeypatch.setattr(responder, "look", meanwhile_granted)
    fates = responder.cut("entitlement=orders-read")
    assert {one.task for one in fates.values() if one.verified} == {"T-1", "T-2"}
    assert responder.users() == 0


def test_one_that_vault_refuses_keeps_no_other_alive_and_an_outage_is_waited_out(
    responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = responder.ask("T-1"), responder.ask("T-2")
    leases, revoke = responder.plane.vault.leases, responder.plane.vault.leases.revoke_token

    def refusing(_: object, accessor: Accessor) -> Answer:
        if accessor == bad.accessor:
            raise VaultRefusedError("no")
        return revoke(accessor)

    monkeypatch.setattr(type(leases), "revoke_token", refusing)
    outages = iter([False, True])
    look = responder.look

    def unsteady() -> Looked:
        if next(outages, False):
            raise VaultUnavailableError("a leader is being chosen")
        return look()

    monkeypatch.setattr(responder, "look", unsteady)
    fates = responder.cut("all")
    assert fates[good.id].verified
    assert (fates[bad.id].verified, fates[bad.id].why) == (False, "no")
    assert fates[bad.id].todo.startswith("Run this again. It ends by itself at ")


def test_where_leases_cannot_be_looked_at_nothing_is_called_verified(
    responder: Responder, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = responder.ask("T-1")
    look = responder.look

    def blind() -> Looked:
        seen = look()
        return Looked(tokens=seen.tokens, leases=(), unseen={"sys/leases/lookup/database/creds": "denied"})

    monkeypatch.setattr(responder, "look", blind)
    fate = responder.cut("all")[grant.id]
    assert (fate.verified, responder.users()) == (False, 0)
    assert "its leases cannot be looked at: sys/leases/lookup/database/creds: denied" in fate.why
