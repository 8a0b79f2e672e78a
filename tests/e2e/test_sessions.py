"""Open sessions end with a cut, and where a role would leave them open that is seen before (D03, I01)."""

import json
import secrets
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from controlplane.cli.incident import incident
from controlplane.dev.stack import Stack
from controlplane.dev.stage import Stage
from controlplane.dev.story import AGENT
from controlplane.model.secret import Secret
from controlplane.sdk.client import Shorthold
from controlplane.testing.served import Witness
from controlplane.vault.client import part

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]


def session(stack: Stack, task: str) -> psycopg.Connection:
    """An open one, of a grant of its own."""
    stage = Stage(stack.project)
    with Shorthold(stack.api, lambda: stage.token(AGENT)) as agent:
        answer = agent.request({"entitlement": "orders-read", "intent": "answer-question", "task": task})
        credentials = agent.unwrap(stack.vault_addr, Secret(answer["wrapping_token"]))
    return stage.connect(credentials["orders"])


@pytest.mark.usefixtures("responder")
def test_d03_open_sessions_end_with_a_cut_and_a_role_that_would_leave_them_open_is_named_before(
    stack: Stack, seer: Witness
) -> None:
    task = f"S-{secrets.token_hex(4)}"
    opened = session(stack, task)

    def cli(*arguments: str) -> Result:
        return CliRunner().invoke(incident, [*arguments, "-l", f"task={task}", "--harden"])

    (role,) = [name for name in seer.vault.list("database/roles") if name.startswith("sh-orders-read-")]
    before = part(seer.vault.read(f"database/roles/{role}"), "data")
    seer.vault.write(f"database/roles/{role}", {**before, "revocation_statements": ['DROP ROLE "{{name}}"']})
    try:
        told = cli("preview", "-o", "json")
        said = cli("preview")
    finally:
        seer.vault.write(f"database/roles/{role}", before)  # what `sync apply` does
    shown: dict[str, Any] = json.loads(told.stdout)
    (soft,) = shown["soft"]
    assert (soft["path"], soft["grants"], soft["sessions"]) == (
        f"database/creds/{role}",
        [shown["grants"][0]["id"]],
        1,
    )
    assert "other revocation statements than ours" in soft["why"]
    assert "`shorthold sync apply` writes our statements back" in said.stderr
    opened.execute("SELECT 1")

    cut = cli("cut", "--count", "1", "--no-freeze", "--incident", "INC-S", "--reason", "a session is open")
    assert cut.exit_code == 0, cut.output
    assert "Hard: every role ends the open sessions" in cut.stderr
    with pytest.raises(psycopg.OperationalError):
        opened.execute("SELECT 1")
    opened.close()
    assert seer.users() == []
