"""Tasks on real servers: what is finished is gone at PostgreSQL, with its parts, kill -9 or not (C9, C13, C21)."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError, Shorthold
from controlplane.testing.served import ServedPlane, Witness

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

QUICK: Final = {"WORKER__TICK": "1s", "WORKER__HOLD": "5s"}
GONE_WITHIN: Final = timedelta(seconds=60)


@pytest.fixture(scope="module")
def stage(stack: Stack) -> Stage:
    return Stage(stack.project)


@pytest.fixture
def agent(stage: Stage) -> Generator[Shorthold]:
    with Shorthold(stage.api, lambda: stage.token(AGENT), timeout=90) as agent:
        yield agent


def ask(agent: Shorthold, task: str, parent: str | None = None, **more: str) -> dict[str, Any]:
    asked = {"entitlement": "orders-read", "task": task, "parent": parent, "intent": "answer-question", **more}
    return agent.request(asked)


def user(answer: dict[str, Any]) -> str:
    (lease,) = answer["leases"]
    return str(lease["principal"])


def exists(stage: Stage, *users: str) -> set[str]:
    """Those of these users that PostgreSQL itself knows."""
    with psycopg.connect(stage.stack.postgres.owner.reveal(), autocommit=True) as owner:
        rows = owner.execute("SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", ([*users],)).fetchall()
    return {str(row[0]) for row in rows}


def test_c9_p03_a_finished_task_is_gone_at_postgresql_with_its_parts_and_stays_finished(
    stage: Stage, agent: Shorthold
) -> None:
    one, other = ask(agent, "tree", ttl="4m"), ask(agent, "tree", ttl="8m")
    part = ask(agent, "tree/a", "tree", ttl="10m")
    beside = ask(agent, "beside")
    users = [user(answer) for answer in (one, other, part)]
    assert len(set(users)) == 3
    assert exists(stage, *users) == set(users)
    assert part["grant"]["under"] == other["grant"]["id"]
    ends = [datetime.fromisoformat(answer["grant"]["expires_at"]) for answer in (part, other)]
    assert ends[0] <= ends[1]
    finished = agent.finish_task("tree", wait="30s")
    assert {grant["state"] for grant in finished["grants"]} == {"revoked"}
    assert all(grant["receipt"]["verified"] for grant in finished["grants"])
    whys = {grant["id"]: grant["why"] for grant in finished["grants"]}
    assert whys == {
        one["grant"]["id"]: "completed",
        other["grant"]["id"]: "completed",
        part["grant"]["id"]: "parent-ended",
    }
    assert exists(stage, *users) == set()
    for task, parent in (("tree", None), ("tree/a", "tree"), ("tree/b", "tree")):
        with pytest.raises(AnsweredError) as refused:
            ask(agent, task, parent)
        code = "task-finished" if task == "tree" else "parent-finished"
        assert code in {why["code"] for why in refused.value.problem["reasons"]}
    assert exists(stage, user(beside)) == {user(beside)}
    assert agent.finish_task("tree")["grants"] == []
    agent.finish_task("beside", wait="30s")


def test_c13_a_second_grant_of_a_task_shares_nothing_with_the_first(stage: Stage, agent: Shorthold) -> None:
    one, other = ask(agent, "twice"), ask(agent, "twice")
    opened = [agent.unwrap(stage.vault_addr, Secret(answer["wrapping_token"]))["orders"] for answer in (one, other)]
    agent.finish(one["grant"]["id"], wait="30s")
    assert exists(stage, user(one), user(other)) == {user(other)}
    with pytest.raises(psycopg.OperationalError):
        stage.connect(opened[0]).close()
    stage.connect(opened[1]).close()
    agent.finish_task("twice", wait="30s")
    assert exists(stage, user(other)) == set()


def test_p03_a_part_dies_with_the_one_grant_that_it_hangs_from(stage: Stage, agent: Shorthold) -> None:
    whole = ask(agent, "hangs")
    part = ask(agent, "hangs/a", "hangs")
    agent.finish(whole["grant"]["id"], wait="30s")
    assert until(lambda: agent.show(part["grant"]["id"])["grant"]["state"] == "revoked", GONE_WITHIN)
    assert agent.show(part["grant"]["id"])["grant"]["why"] == "parent-ended"
    assert exists(stage, user(whole), user(part)) == set()


def test_c13_whoever_asks_while_a_task_is_finished_is_refused_or_ended(stage: Stage, agent: Shorthold) -> None:
    ask(agent, "race")

    def try_it(_: int) -> str:
        with Shorthold(stage.api, lambda: stage.token(AGENT), timeout=90) as racing:
            try:
                return user(ask(racing, "race"))
            except AnsweredError as error:
                return f"refused: {error.told_code}"

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(try_it, number) for number in range(6)]
        finished = agent.finish_task("race", wait="30s")
        got = [future.result() for future in asked]
    assert finished["task"]["finished_at"]
    assert until(lambda: agent.finish_task("race")["grants"] == [], GONE_WITHIN)
    assert {name for name in got if name.startswith("refused")} <= {"refused: denied", "refused: lost-race"}
    assert exists(stage, *got) == set()
    assert {grant["state"] for grant in agent.task("race")["grants"]} == {"revoked"}


def test_p4_killed_while_a_task_ends_the_next_one_ends_all_of_it(stack: Stack, seer: Witness, tmp_path: Path) -> None:
    plane = ServedPlane(stack, tmp_path, QUICK)
    try:
        plane.start()
        with plane.agent(AGENT) as agent:
            for _ in range(6):
                ask(agent, "killed", ttl="15m")
            for number in range(6):
                ask(agent, f"killed/{number}", "killed")
            assert len(seer.users()) == 12
            agent.finish_task("killed")
        plane.kill()
        states = {grant["state"] for grant in plane.grants()}
        assert states <= {"revoking", "revoked"}
        assert "revoking" in states, "all of it ended before the kill: nothing is shown by that"
        plane.start()
        assert until(lambda: all(grant["state"] == "revoked" for grant in plane.grants()), GONE_WITHIN)
        assert seer.users() == []
        with plane.agent(AGENT) as agent:
            assert agent.finish_task("killed")["grants"] == []
            with pytest.raises(AnsweredError, match="was not granted"):
                ask(agent, "killed")
    finally:
        plane.kill()
