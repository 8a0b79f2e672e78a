"""Every dialect there is keeps the promises of the protocol; a new file is tested by being there."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controlplane.engines import dialects as folder
from controlplane.engines import engines, scope_models
from controlplane.engines.database import ENGINE
from controlplane.engines.dialects import USUAL, DatabaseScope, Dialect, Statements, TargetOptions, by_kind, dialects
from controlplane.model.canonical import canonical
from controlplane.model.grant import Revision
from controlplane.model.lease import LeaseId, Response
from controlplane.model.plan import Layout, Naming
from controlplane.model.secret import Secret
from controlplane.probers import prober_of
from controlplane.sync.schema import schema

NAMING = Naming(layout=Layout(mounts={"database": "database"}), entitlement="orders", revision=Revision("0a1b2c3d"))

every = pytest.mark.parametrize("dialect", dialects().values(), ids=dialects().keys())


def example(dialect: Dialect) -> DatabaseScope:
    scope = scope_models()["database"].model_validate(yaml.safe_load(dialect.example))
    assert isinstance(scope, DatabaseScope)
    return scope


def texts(said: Statements) -> list[str]:
    return [*said.creation, *said.renewal, *said.revocation]


@every
def test_its_example_is_sound_and_names_it(dialect: Dialect) -> None:
    scope = example(dialect)
    assert scope.dialect == dialect.word
    assert type(scope) is dialect.scope_model
    assert ENGINE.target(scope).kind == dialect.word
    assert ENGINE.reach(scope)
    assert all(sentence.startswith("may ") and scope.connection in sentence for sentence in ENGINE.reach(scope))


@every
def test_an_editor_is_told_of_it(dialect: Dialect) -> None:
    document = schema(engines())
    wanted: Any = {"$schema": document["$schema"], "$defs": document["$defs"], "$ref": "#/$defs/Scope"}
    scope = yaml.safe_load(dialect.example)
    jsonschema.validate(scope, wanted)
    for wrong in ({"unknown": 1}, {"dialect": "unknown"}, {"privileges": ["drop everything"]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(scope | wrong, wanted)


@every
def test_no_placeholder_is_left_and_vault_fills_in_name_password_and_end_only(dialect: Dialect) -> None:
    (role,) = ENGINE.roles(example(dialect), NAMING, default=timedelta(minutes=5), maximum=timedelta(minutes=15))
    canonical(role.data)
    for text in (json.dumps(dict(role.data)), *texts(dialect.prober())):
        assert not re.search(r"<[a-z]+>", text)
        assert set(re.findall(r"{{(\w+)}}", text)) <= {"name", "password", "expiration"}


@every
def test_the_order_and_the_spelling_of_lines_change_nothing(dialect: Dialect) -> None:
    document = yaml.safe_load(dialect.example)
    lines = [line.replace(" on ", "  ON ", 1) for line in reversed(document["privileges"])]
    other = scope_models()["database"].model_validate(document | {"privileges": lines})
    spans = {"default": timedelta(minutes=5), "maximum": timedelta(minutes=15)}
    assert ENGINE.roles(other, NAMING, **spans) == ENGINE.roles(example(dialect), NAMING, **spans)
    with pytest.raises(ValueError, match="twice"):
        scope_models()["database"].model_validate(document | {"privileges": [*document["privileges"], lines[0]]})


@every
def test_a_user_name_that_would_not_be_safe_in_a_statement_is_refused_d13(dialect: Dialect) -> None:
    for name in ('v";--', "v'", "v`", "v x", "v\n", "v;", "v\\", "vé", ""):
        data = {"username": Secret(name), "password": Secret("p")}
        with pytest.raises(ValueError, match="username_template"):
            ENGINE.receive(example(dialect), Response(lease=LeaseId("x/1"), lease_ttl=timedelta(minutes=5), data=data))


@every
def test_its_targets_have_options_and_a_prober(dialect: Dialect) -> None:
    raw = {"kind": dialect.word, "port": 1234} | (
        {"database": "x"} if "database" in dialect.options.model_fields else {}
    )
    options = by_kind(raw)
    assert isinstance(options, dialect.options)
    assert callable(prober_of(dialect.word))
    with pytest.raises(ValueError, match="Extra inputs"):
        by_kind(raw | {"password": "x"})


def test_a_scope_or_a_target_of_no_dialect_is_told_which_there_are() -> None:
    document = yaml.safe_load(dialects()[USUAL].example)
    for wrong in ("oracle", "", 7, None):
        with pytest.raises(ValueError, match="dialect must be one of: mariadb, postgresql"):
            scope_models()["database"].model_validate(document | {"dialect": wrong})
        with pytest.raises(ValueError, match="kind must be one of: mariadb, postgresql"):
            by_kind({"kind": wrong})


def test_privileges_are_in_the_words_of_the_dialect_that_is_named() -> None:
    document = yaml.safe_load(dialects()["mariadb"].example)
    with pytest.raises(ValueError, match="write it as `read on keys"):
        scope_models()["database"].model_validate(document | {"dialect": "redis"})


TOY = '''
"""A dialect that a newcomer adds."""
import re
from controlplane.engines.dialects import DatabaseScope, Statements, TargetOptions


class ToyScope(DatabaseScope):
    """Toys."""

    toys: tuple[str, ...]


class Toy:
    word = "toy"
    plugins = frozenset({"toy-database-plugin"})
    scope_model = ToyScope
    options = TargetOptions
    example = "name: toys\\nengine: database\\ndialect: toy\\nconnection: box\\ntoys: [ball]\\n"
    usernames = re.compile("[a-z]+")

    def statements(self, scope, group, *, maximum):
        return Statements(creation=[f"LEND {toy} TO {{{{name}}}}" for toy in scope.toys])

    def prober(self):
        return Statements(creation=["LOOK"])

    def reach(self, scope):
        return [f"may play with the {toy} of {scope.connection}" for toy in scope.toys]


DIALECT = Toy()
'''


def test_a_dialect_is_added_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY, encoding="utf-8")
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    dialects.cache_clear()
    try:
        scope = example(dialects()["toy"])
        (role,) = ENGINE.roles(scope, NAMING, default=timedelta(minutes=5), maximum=timedelta(minutes=15))
        assert role.data["creation_statements"] == ["LEND ball TO {{name}}"]
        assert ENGINE.reach(scope) == ["may play with the ball of box"]
        assert '"const": "toy"' in json.dumps(schema(engines()))
        assert isinstance(by_kind({"kind": "toy", "port": 1}), TargetOptions)
    finally:
        dialects.cache_clear()


def test_a_file_that_is_no_dialect_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nothing_at_all.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(folder, "__path__", [*folder.__path__, str(tmp_path)])
    dialects.cache_clear()
    try:
        with pytest.raises(LookupError, match="must have a DIALECT"):
            dialects()
    finally:
        monkeypatch.undo()
        dialects.cache_clear()
