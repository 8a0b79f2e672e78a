"""What docs/sinks.md tells a receiver to do: it takes what we signed, and nothing else."""

import base64
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.model.event import Kind, Link
from controlplane.model.secret import Secret
from controlplane.sinks import kinds
from controlplane.sinks.webhook import payload, signature
from controlplane.testing.store import sample_event

PAGE = Path(__file__).parents[2] / "docs" / "sinks.md"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = payload(Link(seq=1, event=sample_event(1, Kind.GLASS_BROKEN), mac=""))
ID = "ev_1"

Verified = Callable[[str, dict[str, str], bytes], bool]


@pytest.fixture
def verified() -> Verified:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found: dict[str, Verified] = {}
    exec(snippet, found)  # noqa: S102 # what a reader would do with it
    return found["verified"]


def headers(at: int, *secrets: str) -> dict[str, str]:
    signatures = [signature(Secret(secret), ID, at, BODY) for secret in secrets]
    return {"webhook-id": ID, "webhook-timestamp": str(at), "webhook-signature": " ".join(signatures)}


def test_what_we_signed_is_taken_also_while_the_secret_is_being_replaced(verified: Verified) -> None:
    now = int(time.time())
    assert verified(SECRET, headers(now, SECRET), BODY)
    another = "whsec_" + base64.b64encode(b"n" * 32).decode()
    assert verified(SECRET, headers(now, another, SECRET), BODY)
    assert not verified(SECRET, headers(now, another), BODY)


@pytest.mark.parametrize("change", ["id", "timestamp", "signature", "body", "old", "early", "nonsense"])
def test_what_somebody_changed_made_up_or_kept_is_not(verified: Verified, change: str) -> None:
    now = int(time.time()) + {"old": -400, "early": 400}.get(change, 0)
    sent, body = headers(now, SECRET), BODY
    match change:
        case "id":
            sent["webhook-id"] = "ev_2"
        case "timestamp":
            sent["webhook-timestamp"] = str(now + 1)
        case "signature":
            sent["webhook-signature"] = "v1," + "A" * 43 + "="
        case "nonsense":
            sent["webhook-timestamp"] = "now"
        case "body":
            body = BODY.replace(b"glass.broken", b"grant.issued")
        case _:
            pass
    assert not verified(SECRET, sent, body)


def test_every_kind_and_every_option_of_a_sink_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for word, kind in kinds().items():
        for option in kind.options.model_fields:
            assert re.search(rf"\| (?:{word}: )?`{option}` \|", text), (word, option)
