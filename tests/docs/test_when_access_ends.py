"""Every row of docs/when-access-ends.md names a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "when-access-ends.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("|") and not re.match(r"\|(---|.*\| test \|$)", line)]


def test_there_is_a_table_for_every_part() -> None:
    parts = " ".join(re.findall(r"^## (.+)$", PAGE, re.MULTILINE)).lower()
    for part in ("control plane", "worker", "store", "openbao", "target", "prober's login", "network"):
        assert part in parts
    assert len(ROWS) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:60].strip())
def test_the_row_says_when_and_why_and_names_a_test_that_exists(row: str) -> None:
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == 4
    assert all(cells)
    named = re.fullmatch(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", cells[3])
    assert named is not None, cells[3]
    tree = ast.parse((ROOT / "tests" / named[1]).read_text(encoding="utf-8"))
    assert named[2] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
