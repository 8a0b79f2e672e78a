"""Roles and groups come from claims, by rules of the settings; without a rule nobody has any."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from controlplane.keys.files import load_or_create
from controlplane.model.access import AccessRule, Role, Standing, standing
from controlplane.model.errors import ConfigurationError
from controlplane.model.identity import IssuerName
from controlplane.settings import AccessSettings, Settings, VaultIdentity, VaultSettings
from controlplane.testing.plane import FakePlane
from controlplane.wiring.plane import wire

DEV = IssuerName("dev")


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane()


def test_nobody_has_access_without_a_rule(plane: FakePlane) -> None:
    assert standing((), plane.agent("ann", role="approver", groups=["all"])) == Standing()


def test_every_condition_of_a_rule_must_hold(plane: FakePlane) -> None:
    rule = AccessRule(issuer=DEV, subject="ann", claims={"team": "billing"}, roles=frozenset({Role.APPROVER}))
    assert standing([rule], plane.agent("ann", team="billing")).roles == {Role.APPROVER}
    assert not standing([rule], plane.agent("bob", team="billing")).roles
    assert not standing([rule], plane.agent("ann", team="sales")).roles
    assert not standing([rule], plane.agent("ann")).roles


def test_the_same_claims_of_another_issuer_give_nothing(plane: FakePlane) -> None:
    rule = AccessRule(issuer=IssuerName("other"), subject="ann", roles=frozenset({Role.RESPONDER}))
    assert not standing([rule], plane.agent("ann")).roles


def test_a_claim_that_is_a_list_fits_by_a_member_and_never_by_a_part_of_one(plane: FakePlane) -> None:
    rule = AccessRule(issuer=DEV, claims={"realm/roles": "auditor"}, roles=frozenset({Role.AUDITOR}))
    assert standing([rule], plane.agent("ann", realm={"roles": ["x", "auditor"]})).roles == {Role.AUDITOR}
    assert not standing([rule], plane.agent("ann", realm={"roles": ["auditors", ["auditor"], 7, None]})).roles


def test_groups_come_from_the_claim_that_a_fitting_rule_names(plane: FakePlane) -> None:
    fits = AccessRule(issuer=DEV, subject="ann", roles=frozenset({Role.APPROVER}), groups="groups")
    other = AccessRule(issuer=DEV, subject="bob", roles=frozenset({Role.APPROVER}), groups="secret_groups")
    who = plane.agent("ann", groups=["billing", 3, "oncall"], secret_groups=["root"])
    assert standing([fits, other], who).groups == {"billing", "oncall"}


def test_rules_add_up(plane: FakePlane) -> None:
    rules = [AccessRule(issuer=DEV, subject="ann", roles=frozenset({role})) for role in Role]
    assert standing(rules, plane.agent("ann")).roles == frozenset(Role)


@pytest.mark.parametrize(
    "given",
    [
        {"issuer": "dev", "roles": ["approver"]},
        {"issuer": "dev", "subject": "ann", "roles": []},
        {"issuer": "dev", "subject": "ann", "roles": ["admin"]},
        {"issuer": "dev", "subject": "ann", "roles": ["approver"], "group": "x"},
    ],
    ids=["everybody", "no role", "unknown role", "unknown key"],
)
def test_a_rule_that_is_too_wide_or_unknown_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AccessSettings.model_validate(given)


def test_an_access_rule_of_an_unknown_issuer_stops_the_start_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key = tmp_path / "broker.pem"
    load_or_create(key)
    settings = Settings(
        vault=VaultSettings(broker=VaultIdentity(mount="b", role="broker", key_file=key)),
        access=(AccessSettings(issuer="idp", subject="ann", roles=(Role.APPROVER,)),),
    )
    with pytest.raises(ConfigurationError, match="access names the issuer idp"):
        wire(settings)
    assert list(tmp_path.iterdir()) == [key]
