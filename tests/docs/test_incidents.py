"""The page on incidents knows every selector, and nothing that is none."""

import re
from pathlib import Path

from controlplane.selectors import selectors

PAGE = Path(__file__).parents[2] / "docs" / "incidents.md"


def test_every_selector_and_no_other_has_its_line_in_the_table_of_keys() -> None:
    _, _, after = PAGE.read_text(encoding="utf-8").partition("| key | looks at |")
    table, _, _ = after.partition("\n\n")
    words = re.findall(r"^\| `([a-z]+)(?:\.<[a-z]+>)?` \|", table, re.MULTILINE)
    assert sorted(words) == sorted(selectors())


def test_the_values_of_a_selector_that_has_few_are_named() -> None:
    for selector in selectors().values():
        for choice in selector.choices:
            assert f"`{choice}`" in PAGE.read_text(encoding="utf-8"), selector.word
