"""docs/engines.md has every engine, with its own example, its class, and an honest word where nobody can be asked."""

import re
from pathlib import Path

import pytest

from controlplane.engines import engines
from controlplane.ports import Engine

PAGE = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")

every = pytest.mark.parametrize("engine", engines().values(), ids=engines().keys())


def section(word: str) -> str:
    (found,) = re.findall(rf"^## {word}\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE)
    return found


@every
def test_the_page_shows_the_example_that_is_compiled_in_tests(engine: Engine) -> None:
    assert f"```yaml\n{engine.example}```\n" in section(engine.word)


@every
def test_the_table_says_of_what_class_it_is(engine: Engine) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{engine.word}` |")]
    assert row.split("|")[2].strip() == engine.revocability.value


def test_the_table_has_no_engine_that_there_is_not() -> None:
    assert set(re.findall(r"^\| `([a-z]+)` \|", PAGE, re.MULTILINE)) == set(engines())
