"""docs/api.md lists every code that can be told, with its status, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from controlplane.http import intake, rates, refusals, waiting, wire
from controlplane.model import errors
from controlplane.model.errors import ControlPlaneError
from controlplane.settings import ApiSettings

PAGE: Final = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
ROW: Final = re.compile(r"^\| `([a-z-]+)` \| (\d{3})? ?\| \S", re.MULTILINE)

_WORDS: Final = {10: "Ten"}


def kinds(kind: type[ControlPlaneError] = ControlPlaneError) -> Iterator[type[ControlPlaneError]]:
    if kind.__module__ in {errors.__name__, refusals.__name__}:
        yield kind
    for narrower in kind.__subclasses__():
        yield from kinds(narrower)


def test_every_code_is_in_the_table_with_its_status() -> None:
    told = dict(ROW.findall(PAGE))
    assert set(told) == {kind.code for kind in kinds()}
    for kind in kinds():
        assert told[kind.code] in {"", str(int(kind.status))}, kind.code


def test_one_code_has_one_status() -> None:
    statuses: dict[str, int] = {}
    for kind in kinds():
        assert statuses.setdefault(kind.code, kind.status) == kind.status, kind.code


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    for said in (
        f"{intake.LARGEST_BODY // 1024} KiB of body",
        f"{wire.LARGEST_HEAD // 1024} KiB of headers",
        "8 KiB of path and query",
        f"{intake.BODY_WITHIN:g} for the body",
        f"{wire.HEAD_WITHIN:g} seconds for the headers",
        f"of more than {wire.MOST_UNHEARD} such",
        f"The {rates.MOST_BUCKETS:_} used last".replace("_", " "),
        f"{_WORDS[waiting.MOST_OF_ONE]} requests of one workload wait at a time, and {waiting.MOST_OF_ALL} of all",
        f"`{ApiSettings().rate}` is twenty a second",
    ):
        assert said in " ".join(PAGE.split()), said
