"""A store that takes nothing, and a control plane that is killed meanwhile: access ends, told once (P6, L01)."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.audit.chain import Intact
from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import AnsweredError
from controlplane.testing.served import ServedPlane, Witness

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]

WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}


def test_p6_what_was_finished_while_the_store_was_locked_is_gone_at_once_and_told_after_a_kill(
    stack: Stack, seer: Witness, tmp_path: Path
) -> None:
    plane = ServedPlane(stack, tmp_path)
    plane.start()
    try:
        with plane.agent(AGENT) as agent:
            answer = agent.request(WISH)
            id = str(answer["grant"]["id"])
            credential = agent.unwrap(stack.vault_addr, Secret(answer["wrapping_token"]))["orders"]
            with closing(sqlite3.connect(plane.store, isolation_level=None)) as intruder:
                intruder.execute("BEGIN IMMEDIATE")
                with pytest.raises(AnsweredError) as refused:
                    agent.finish(id)
                assert refused.value.http_status == 503
                assert until(lambda: seer.users() == [], timedelta(seconds=60))
                assert not Stage(stack.project).opens(credential)
                assert agent.show(id)["grant"]["state"] == "active"  # as it was last saved
                plane.kill()
        plane.start()
        assert until(lambda: plane.grants()[0]["state"] == "revoked", timedelta(seconds=90))
        assert plane.grants()[0]["why"] == "completed"
        kinds = plane.events(id)
        assert (kinds.count("grant.ended"), kinds.count("grant.revoked")) == (1, 1)
        assert isinstance(plane.audit(), Intact)
    finally:
        plane.kill()
