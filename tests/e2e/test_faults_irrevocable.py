"""A target that stays away until Vault gives its lease up: told loudly, and healed when it returns (R13, fact 32).

Vault's own six tries take ten minutes or more, and nothing shortens them: `pytest -m long` runs this file.
"""

import time
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.dev.process import until
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.testing.served import ServedPlane, Witness

pytestmark = [pytest.mark.servers, pytest.mark.long, pytest.mark.timeout(1800)]

WISH: dict[str, str | None] = {"entitlement": "orders-read", "task": "T-1", "intent": "answer-question"}


def test_a_lease_that_vault_gave_up_is_told_loudly_and_healed_when_its_target_returns(
    stack: Stack, seer: Witness, tmp_path: Path
) -> None:  # R13
    plane = ServedPlane(stack, tmp_path, {"VAULT__TIMEOUT": "5s", "WORKER__HOLD": "40s"})
    plane.start()
    try:
        with plane.agent(AGENT) as agent:
            answer = agent.request(WISH)
            id, lease = str(answer["grant"]["id"]), str(answer["leases"][0]["id"])
            credential = agent.unwrap(stack.vault_addr, Secret(answer["wrapping_token"]))["orders"]
            began = time.monotonic()
            stack.postgres.stop()
            try:
                agent.finish(id)
                given_up = until(
                    lambda: agent.show(id)["grant"]["state"] == "irrevocable", timedelta(minutes=25), every=2
                )
                told = agent.show(id)["grant"]
                known = seer.vault.write("sys/leases/lookup", {"lease_id": lease})
            finally:
                stack.postgres.start()
            print(f"given up after {time.monotonic() - began:.0f} s; Vault says {known}")  # noqa: T201 # for whoever waited
            assert given_up, told
            assert f"Vault has given lease {lease} up" in told["failing"]
            returned = time.monotonic()
            assert until(lambda: agent.show(id)["grant"]["state"] == "revoked", timedelta(seconds=60))
            print(f"healed {time.monotonic() - returned:.0f} s after the target returned")  # noqa: T201
            assert agent.show(id)["grant"]["receipt"]["verified"] is True
        events = plane.events(id)
        assert (events.count("grant.stranded"), events.count("grant.healed"), events[-1]) == (1, 1, "grant.revoked")
        assert "grant_irrevocable" in plane.log.read_text(encoding="utf-8")
        assert not Stage(stack.project).opens(credential)
        assert seer.users() == []
    finally:
        plane.kill()
