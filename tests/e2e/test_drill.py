"""The drill on real servers: it contains what it loses, and it fails where revocation is broken (P3, I01)."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controlplane.cli.incident import incident
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.testing.served import Witness
from controlplane.vault.client import part

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


def drill(stack: Stack, tmp_path: Path, within: str) -> Result:
    file = tmp_path / "agent.token"
    file.write_text(Stage(stack.project).token(AGENT).reveal(), encoding="utf-8")
    asked = ["orders-read", "--token-file", str(file), "--within", within, "-o", "json"]
    return CliRunner().invoke(incident, ["drill", *asked])


def test_a_drill_contains_what_it_loses_leaves_nothing_and_fails_where_revocation_is_broken_i01(
    stack: Stack, seer: Witness, responder: Secret, tmp_path: Path
) -> None:
    sound = drill(stack, tmp_path, "60s")
    assert sound.exit_code == 0, sound.output
    told: dict[str, Any] = json.loads(sound.stdout)
    (engine,) = told["engines"]
    assert (engine["engine"], engine["credentials"], engine["verified"]) == ("database", 1, 1)
    assert 0 < engine["p50"] == engine["p99"] <= told["containment"]["longest"]
    assert seer.users() == []

    (role,) = [name for name in seer.vault.list("database/roles") if name.startswith("sh-orders-read-")]
    before = part(seer.vault.read(f"database/roles/{role}"), "data")
    seer.vault.write(f"database/roles/{role}", {**before, "revocation_statements": ["SELECT 1"]})
    try:
        broken = drill(stack, tmp_path, "4s")
    finally:
        seer.vault.write(f"database/roles/{role}", before)
    assert broken.exit_code == 5, broken.output
    (run,) = json.loads(broken.stdout)["runs"]
    (user,) = seer.users()
    assert (run["seconds"], run["engines"]) == (None, {"database": [None]})
    assert user in run["why"]
    assert "Revocation is broken" in broken.stderr
    seer.drop([user])
    with Shorthold(stack.api, lambda: Stage(stack.project).token(AGENT)) as agent:
        assert until(lambda: agent.show(run["grant"])["grant"]["state"] == "revoked", timedelta(seconds=90), every=0.5)
    with Shorthold(stack.api, lambda: responder) as door:
        reported = door.report(told["incident"])
        assert reported["grants"] == 1
        kinds = ("selection.previewed", "cut.ordered", "grant.revoked", "cut.ended", "selection.thawed")
        assert all(f">{kind}<" in reported["bundle"] for kind in kinds)
        # No freeze of a drill is left.
        tasks = {one["task"] for each in (told, json.loads(broken.stdout)) for one in each["runs"]}
        assert not {f"task={task}" for task in tasks} & {one["selection"] for one in door.freezes()["freezes"]}
