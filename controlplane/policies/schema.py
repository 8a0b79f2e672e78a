"""The Cedar schema: what policies see. It is part of the code that fills it in, so both change together."""

from functools import lru_cache
from pathlib import Path
from typing import Final

from cedarpy import Schema

FILE: Final = "shorthold.cedarschema"


@lru_cache(maxsize=1)
def text() -> str:
    """The schema as it is written, with what every part means."""
    return (Path(__file__).parent / FILE).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def schema() -> Schema:
    """The schema, parsed once."""
    return Schema.from_str(text())
