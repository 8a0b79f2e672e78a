"""Intents that nobody names any more are told of, and only those (C27)."""

import json
from datetime import timedelta
from pathlib import Path

from controlplane.engines import scope_models
from controlplane.model.grant import TaskId
from controlplane.sync import usage
from controlplane.sync.load import load
from controlplane.testing.entitlements import compiled_entitlement, document
from controlplane.testing.plane import FakePlane


def test_c27_an_intent_that_nobody_named_in_a_while_is_a_warning_at_its_place(tmp_path: Path) -> None:
    intents = ["answer-question", "prepare-report"]
    (tmp_path / "orders-read.yaml").write_text(json.dumps(document(intents=intents)), encoding="utf-8")
    sources = load(tmp_path, scope_models()).sources
    plane = FakePlane(compiled_entitlement(intents=intents))
    begin = plane.clock.now()

    def unused() -> list[str]:
        found = list(usage.unused(sources, plane.store, since=plane.clock.now() - timedelta(days=90)))
        assert {(problem.file, problem.rule, problem.severity) for problem in found} <= {
            ("orders-read.yaml", "unused-intent", "warning")
        }
        assert all(problem.column > 1 for problem in found)
        return [problem.message.split()[4] for problem in found]

    assert unused() == intents
    plane.ask(intent="answer-question", task=TaskId("T-1"))
    assert unused() == ["prepare-report"]
    plane.clock.advance(begin + timedelta(days=91) - plane.clock.now())
    assert unused() == intents
