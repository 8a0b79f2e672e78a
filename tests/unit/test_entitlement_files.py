"""The shipped entitlements and the schema beside them: what an editor says is what the loader says."""

from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from jsonschema import Draft202012Validator

from controlplane.engines import engines
from controlplane.model.entitlement import Risk
from controlplane.sync.review import review
from controlplane.sync.schema import FILE, schema, text
from controlplane.testing.entitlements import LAYOUT

ROLES = Path(__file__).parents[2] / "roles"
FILES = sorted(ROLES.glob("*.yaml"))


def accepted(document: object) -> bool:
    """What an editor thinks of a document."""
    validator: Any = Draft202012Validator(schema(engines()))  # jsonschema's own types are partly unknown
    return bool(validator.is_valid(document))


each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def test_the_shipped_entitlements_have_no_problem_and_cover_every_tier_and_engine_of_the_demo() -> None:
    found = review(ROLES, LAYOUT, engines(), today=date(2026, 1, 5))
    assert found.problems == ()
    assert {item.entitlement.risk for item in found.compiled} == set(Risk)
    assert {scope.engine for item in found.compiled for scope in item.entitlement.scopes} == set(LAYOUT.mounts)


def test_the_schema_beside_them_is_the_one_that_the_model_makes() -> None:
    assert (ROLES / FILE).read_text() == text(engines()), "run `shorthold sync schema --write`"


def test_the_schema_is_a_schema_and_knows_every_engine() -> None:
    Draft202012Validator.check_schema(schema(engines()))
    for word in engines():
        assert f'"const": "{word}"' in text(engines())


@each
def test_an_editor_finds_the_schema_and_agrees(file: Path) -> None:
    assert file.read_text().startswith(f"# yaml-language-server: $schema=./{FILE}\n")
    assert accepted(yaml.safe_load(file.read_text()))


REFUSED: list[dict[str, Any]] = [
    {"aprovals": 2},
    {"risk": "lowest"},
    {"scopes": []},
    {"scopes": [{"name": "a", "engine": "no-such"}]},
    {"scopes": [{"name": "a", "engine": "pki", "common_name": "a.b", "privileges": []}]},
    {"ttl": {"default": 300, "max": "15m"}},
    {"eligibility": [{"issuer": "dev", "subject": {"globs": "x"}}]},
    {"heartbeat": None},
]


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_an_editor_marks_what_the_loader_refuses(change: dict[str, Any]) -> None:
    assert not accepted(yaml.safe_load(FILES[0].read_text()) | change)


def unexplained(part: object, definitions: dict[str, Any], where: str = "") -> list[str]:
    """The keys that an editor would offer without a word."""
    if isinstance(part, list):
        items = enumerate(cast("list[object]", part))
        return [key for place, item in items for key in unexplained(item, definitions, f"{where}/{place}")]
    if not isinstance(part, dict):
        return []
    shape = cast("dict[str, Any]", part)
    found: list[str] = []
    for name, field in cast("dict[str, dict[str, Any]]", shape.get("properties", {})).items():
        target: dict[str, Any] = definitions[field["$ref"].rpartition("/")[2]] if "$ref" in field else {}
        if not field.get("description") and not target.get("description"):
            found.append(f"{where}/{name}")
    return found + [key for name, item in shape.items() for key in unexplained(item, definitions, f"{where}/{name}")]


def test_an_editor_explains_every_key_that_it_completes() -> None:
    whole: Any = schema(engines())
    assert unexplained(whole, whole["$defs"]) == []
