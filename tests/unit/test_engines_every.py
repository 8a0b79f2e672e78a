"""Every engine there is keeps the promises of the port; none is named here, so a new file is tested by being there."""

import re
from datetime import timedelta
from typing import Any

import pytest
import yaml

from controlplane.engines import engines, scope_models
from controlplane.model.canonical import canonical
from controlplane.model.entitlement import Revocability, Scope
from controlplane.model.grant import Revision
from controlplane.model.lease import LeaseId, Response
from controlplane.model.plan import Layout, Naming, ObjectKind
from controlplane.ports import Engine
from controlplane.sync.ours import Origin, origin

MOUNTS = {word: f"{word}-at" for word in engines()}
NAMING = Naming(layout=Layout(mounts=MOUNTS), entitlement="an-example", revision=Revision("0a1b2c3d"))

every = pytest.mark.parametrize("engine", engines().values(), ids=engines().keys())


def example(engine: Engine) -> Scope:
    return scope_models()[engine.word].model_validate(yaml.safe_load(engine.example))


@every
def test_its_example_is_sound_and_names_it(engine: Engine) -> None:
    assert example(engine).engine == engine.word
    assert engine.revocability in Revocability


@every
def test_an_unknown_key_in_its_scope_is_an_error(engine: Engine) -> None:
    document: dict[str, Any] = yaml.safe_load(engine.example)
    with pytest.raises(ValueError, match="Extra inputs"):
        engine.scope_model.model_validate(document | {"unknown": 1})


@every
def test_its_roles_have_our_names_and_every_span_of_time(engine: Engine) -> None:
    scope = example(engine)
    roles = engine.roles(scope, NAMING, default=timedelta(minutes=5), maximum=timedelta(minutes=15))
    where = engine.places(MOUNTS[engine.word])
    assert {role.path for role in roles if role.kind is ObjectKind.SECRET_ROLE} == (
        set() if where.roles is None else {f"{where.roles}/{NAMING.scope(scope.name)}"}
    )
    for role in roles:
        assert role.entitlement == "an-example"
        assert origin(NAMING.layout, role.kind, role.path) == Origin(entitlement="an-example", revision="0a1b2c3d")
        spans = {name: span for name, span in role.data.items() if name.endswith("ttl")}
        assert all(span in {300, 600, 900} for span in spans.values()), "no span of time is left to a default"
        assert not spans or max(spans.values()) == 900  # pyright: ignore[reportArgumentType, reportCallIssue] # numbers
        canonical(role.data)


@every
def test_what_it_mounts_is_of_a_type_and_nothing_of_it_is_outside_its_mount(engine: Engine) -> None:
    assert isinstance(engine.mounting["type"], str)
    where = engine.places("a-mount")
    for path in (where.roles, where.leases, where.holds):
        assert path is None or path.startswith(("a-mount/", "auth/token/"))
    assert where.leases is None or where.leases.startswith("a-mount/"), (
        "the reconciler would call others' leases orphans"
    )


@every
def test_an_end_that_nobody_confirms_is_explained_and_one_that_is_confirmed_needs_no_excuse(engine: Engine) -> None:
    """P3."""
    assert (engine.unasked == "") is (engine.revocability is Revocability.PROVABLE)


@every
def test_what_it_asks_for_is_exactly_what_its_policy_allows(engine: Engine) -> None:
    scope = example(engine)
    rules = engine.capabilities(scope, NAMING)
    ask = engine.ask(scope, NAMING, ttl=timedelta(seconds=90))
    assert set(rules) == {ask.path}
    assert rules[ask.path]["capabilities"] == ["read" if ask.body is None else "update"]
    assert re.fullmatch(r"[a-z0-9/._-]+", ask.path), "a path of a policy has no pattern in it"
    allowed = rules[ask.path].get("allowed_parameters")
    if ask.body is not None:
        assert isinstance(allowed, dict)
        assert set(allowed) == set(ask.body)
        assert all(values == [] or ask.body[name] in values for name, values in allowed.items())  # pyright: ignore[reportOperatorIssue] # a list, or the test fails


@every
def test_an_answer_without_what_it_always_gives_is_refused(engine: Engine) -> None:
    empty = Response(lease=LeaseId("somewhere/1"), lease_ttl=timedelta(minutes=5), data={})
    with pytest.raises(ValueError, match="without"):
        engine.receive(example(engine), empty)


@every
def test_it_tells_a_reviewer_what_can_be_touched_and_a_prober_whom_to_ask(engine: Engine) -> None:
    scope = example(engine)
    assert all(sentence.startswith("may ") for sentence in engine.reach(scope))
    assert engine.reach(scope)
    assert engine.target(scope).kind
    assert engine.target(scope).name
