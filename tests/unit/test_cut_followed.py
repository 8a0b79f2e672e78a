"""How a running cut is followed: by server-sent events, and by a command whose exit status says how it went (P10)."""

import json
import re
import threading
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from pytest_socket import enable_socket

from controlplane.cli import cutting
from controlplane.cli.incident import incident
from controlplane.model.access import Role, Standing
from controlplane.model.canonical import JsonValue
from controlplane.model.cut import Outcome
from controlplane.testing.canned import Canned, canned
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

RESPONDER = Standing(roles=frozenset({Role.RESPONDER}))
ID = "ct_" + "a" * 24
WORDS = ("--incident", "INC-7", "--reason", "leaked key")
LEFT: JsonValue = [
    {"grant": "gr_1", "subject": "s", "entitlement": "e", "state": "revoking", "why": "no answer", "todo": "look"}
]


def test_p10_a_stream_tells_each_change_once_and_ends_with_the_cut(
    http: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = FakePlane(compiled_entitlement())
    plane.ask()
    ann = plane.agent("ann")
    cut = plane.cut(
        ann, RESPONDER, plane.preview(ann, RESPONDER, "task=T-1").digest or "", incident="I", reason="r"
    ).cut
    looks: list[float] = []

    async def works_meanwhile(delay: float) -> None:
        looks.append(delay)
        if len(looks) == 3:  # until then nothing changes
            plane.wait(timedelta(seconds=20))
            plane.work()

    monkeypatch.setattr(anyio, "sleep", works_meanwhile)
    token = plane.issuer.mint("ann", jti="t-1", role="responder").reveal()
    answer = http(plane, "GET", f"/v1/incidents/{cut.id}/events", headers={"Authorization": f"Bearer {token}"})

    assert answer.headers["Content-Type"].startswith("text/event-stream")
    *events, rest = answer.text.split("\n\n")
    assert rest == ""
    assert all(event.startswith("event: progress\ndata: ") for event in events)
    first, last = (json.loads(event.partition("data: ")[2]) for event in events)
    assert (first["cut"]["ended_at"], first["progress"]["verified"]) == (None, 0)
    assert last["cut"]["ended_at"] is not None
    assert (last["progress"]["verified"], last["progress"]["total"]) == (1, 1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[Canned]:
    enable_socket()
    monkeypatch.chdir(tmp_path)
    for name in ("SHORTHOLD_CONFIG", "SHORTHOLD_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cutting, "_BETWEEN", 0.0)
    monkeypatch.setattr(cutting, "_PATIENCE", 0.05)
    with canned() as told:
        monkeypatch.setenv("SHORTHOLD_ADDR", told.addr)
        monkeypatch.setenv("SHORTHOLD_TOKEN", "tok")
        preview: JsonValue = {"selection": "task=T-1", "count": 2, "of": 5, "digest": "d1", "soft": None}
        told.answers["POST /v1/incidents/preview"] = (200, preview)
        told.answers["POST /v1/incidents/cut"] = (202, {**seen(), "changed": {"new": 0, "ended": 0}, "settled": True})
        yield told


def seen(ended_at: str | None = None, **counts: int) -> dict[str, JsonValue]:
    progress = {name.value: counts.get(name.value, 0) for name in Outcome}
    left: dict[str, JsonValue] = {name: LEFT if counts.get(name) else [] for name in ("residual", "unverifiable")}
    return {"cut": {"id": ID, "ended_at": ended_at}, "progress": {**progress, "total": sum(counts.values())}, **left}


def run(*words: str) -> Result:
    return CliRunner().invoke(incident, list(words))


@pytest.mark.parametrize(
    ("counts", "ended_at", "status", "said"),
    [
        ({"verified": 2}, "2026-07-01T12:00:09Z", 0, "Verified gone: all 2."),
        ({"verified": 1, "withdrawn": 1}, "2026-07-01T12:00:09Z", 0, "Verified gone: all 2."),
        ({"verified": 1, "unverifiable": 1}, "2026-07-01T12:00:09Z", 5, "NOT everything is verified gone"),
        ({"verified": 1, "residual": 1}, None, 5, "NOT everything is verified gone"),
    ],
)
def test_p10_the_exit_status_is_0_only_where_all_is_verified_gone(
    server: Canned, counts: dict[str, int], ended_at: str | None, status: int, said: str
) -> None:
    server.answers[f"GET /v1/incidents/{ID}"] = (200, seen(ended_at, **counts))
    for words in (("cut", "-l", "task=T-1", "--count", "2", *WORDS), ("watch", ID)):
        told = run(*words)
        assert told.exit_code == status, told.output
        assert said in told.stderr
        assert ("no answer" in told.stdout) == bool({"residual", "unverifiable"} & counts.keys())


def test_without_waiting_the_id_is_all_that_is_printed_and_nothing_is_looked_at(server: Canned) -> None:
    told = run("cut", "--digest", "d1", "--no-wait", *WORDS)
    assert (told.exit_code, told.stdout.split()) == (0, ["id", ID])
    assert [each.path.partition("?")[0] for each in server.asked] == ["/v1/incidents/cut"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("-l", "task=T-1", "--count", "3"), 1, "there are 2 grants, not 3; nothing was cut"),
        (("-l", "task=T-1"), 2, "nobody is there to be asked"),
        ((), 2, "say what with -l, or --all"),
    ],
)
def test_c20_what_nobody_has_counted_is_not_cut(server: Canned, words: tuple[str, ...], status: int, said: str) -> None:
    told = run("cut", *words, *WORDS)
    assert told.exit_code == status
    assert said in told.stderr
    assert not [each for each in server.asked if each.path.startswith("/v1/incidents/cut")]


def test_what_selects_nothing_says_so_and_exits_with_1(server: Canned) -> None:
    nothing: JsonValue = {"selection": "task=T-1", "count": 0, "of": 5, "digest": None, "soft": None}
    server.answers["POST /v1/incidents/preview"] = (200, nothing)
    for words in (("preview", "-l", "task=T-1"), ("cut", "-l", "task=T-1", "--count", "0", *WORDS)):
        told = run(*words)
        assert told.exit_code == 1
        assert "selects nothing of 5 grants" in told.stderr


def test_a_control_plane_that_is_away_for_a_while_is_waited_for(
    server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers[f"GET /v1/incidents/{ID}"] = (200, seen(waiting=2))
    over = seen("2026-07-01T12:00:09Z", verified=2)
    answers: list[tuple[int, JsonValue]] = [(503, "<html>"), (429, {"code": "too-many-requests"}), (200, over)]

    def next_look(seconds: float) -> None:
        del seconds
        server.answers[f"GET /v1/incidents/{ID}"] = answers.pop(0)

    monkeypatch.setattr(cutting.time, "sleep", next_look)
    told = run("watch", ID)
    assert (told.exit_code, "Verified gone: all 2." in told.stderr) == (0, True), told.output


def test_a_bar_shows_how_many_are_gone_how_fast_what_resists_and_how_long_it_takes_yet(
    server: Canned, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [seen(waiting=4), seen(verified=1, ending=3), seen(verified=2, ending=1, residual=1)]
    last = seen(verified=3, residual=1)
    pause = threading.Event()

    def next_look(seconds: float) -> None:
        del seconds
        pause.wait(0.02)  # there is no speed without time
        server.answers[f"GET /v1/incidents/{ID}"] = (200, looks.pop(0) if looks else last)

    monkeypatch.setattr(cutting.time, "sleep", next_look)
    monkeypatch.setattr(cutting, "_PATIENCE", 0.5)
    next_look(0)
    assert "/4" not in run("watch", ID).output  # nobody looks at a bar in a file

    looks[:] = [seen(waiting=4), seen(verified=1, ending=3), seen(verified=2, ending=1, residual=1)]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    next_look(0)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", run("watch", ID).stderr)
    assert re.search(r"3/4 +\d+/s 1 resist +\d:\d\d:\d\d", shown), shown
