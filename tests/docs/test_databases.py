"""docs/databases.md shows the example of every dialect, as it is, and what its targets' settings are called."""

from pathlib import Path
from typing import Final

import pytest

from controlplane.engines.dialects import Dialect, dialects

PAGE: Final = (Path(__file__).parents[2] / "docs" / "databases.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("dialect", dialects().values(), ids=dialects().keys())
def test_every_dialect_has_its_example_its_column_and_its_plugin_there(dialect: Dialect) -> None:
    assert f"```yaml\n{dialect.example}```" in PAGE
    assert f"| `{dialect.word}` |" in PAGE
    assert any(f"`{plugin}`" in PAGE for plugin in dialect.plugins)
    if dialect.word != "postgresql":
        assert f'kind = "{dialect.word}"' in PAGE
