"""What is wrong is said in words: no pattern, and no library speaking."""

from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.engines import engines
from controlplane.http.grants import Ask, Finish
from controlplane.model.entitlement import Entitlement
from controlplane.model.wording import UNEXPLAINED, pattern_worded, worded


def patterns(schema: Any) -> Iterator[str]:  # noqa: ANN401 # any part of a JSON Schema
    if isinstance(schema, dict):
        for name, part in schema.items():  # pyright: ignore[reportUnknownVariableType] # any part of a JSON Schema
            if name == "pattern" and isinstance(part, str):
                yield part
            else:
                yield from patterns(part)
    elif isinstance(schema, list):
        for part in schema:  # pyright: ignore[reportUnknownVariableType] # as above
            yield from patterns(part)


MODELS = [Ask, Finish, Entitlement, *(engine.scope_model for engine in engines().values())]


def test_every_pattern_that_a_person_can_miss_is_explained() -> None:
    found = {pattern for model in MODELS for pattern in patterns(model.model_json_schema())}
    own = {pattern for pattern in found if pattern_worded(pattern) == UNEXPLAINED}
    # Durations, privileges, windows and rates are read by parsers with words of their own; a host's name is what it is.
    parsed = ("PT", r"\.", r"\S", "Mon", "/[smhd]")
    assert {pattern for pattern in own if not any(part in pattern for part in parsed)} == set()


@pytest.mark.parametrize(
    ("kind", "message", "context", "said"),
    [
        ("string_pattern_mismatch", "x", {"pattern": "^[a-z][a-z0-9-]{2,47}$"},
         "small letters, digits and - only, a letter first, 3 to 48 characters"),
        ("value_error", "Value error, write it so", {}, "write it so"),
        ("extra_forbidden", "Extra inputs are not permitted", {}, "there is no such field"),
        ("missing", "Field required", {}, "it is missing"),
        ("too_short", "Tuple should have at least 1 item", {"min_length": 1}, "it is empty"),
        ("string_type", "Input should be a valid string", {}, "it should be a text"),
    ],
)  # fmt: skip
def test_no_library_speaks(kind: str, message: str, context: dict[str, object], said: str) -> None:
    assert worded(kind, message, context) == said
