"""A receipt is signed, says all of it, and anybody with the public keys can check it, also after a change of key."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controlplane.cli.grant import grant
from controlplane.keys.files import SigningKey, generate
from controlplane.keys.receipts import FILE, public_keys, receipt_keys, verified
from controlplane.model.canonical import JsonObject, canonical
from controlplane.model.errors import ConfigurationError, ReceiptBrokenError
from controlplane.model.grant import Grant
from controlplane.stores.rows import grant_row
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane

CERTIFICATE = [{"name": "client", "engine": "pki", "common_name": "checkout.agents.acme.example"}]


@pytest.fixture
def plane() -> FakePlane:
    return FakePlane(compiled_entitlement())


def ended(plane: FakePlane) -> Grant:
    revoked = plane.end(plane.ask().grant.id)
    assert revoked.receipt is not None
    assert revoked.receipt.signed is not None
    return revoked


def signed(revoked: Grant) -> str:
    assert revoked.receipt is not None
    return str(revoked.receipt.signed)


def jwks(*keys: object) -> str:
    return json.dumps({"keys": list(keys)})


def shown(revoked: Grant) -> str:
    told = {"verified": True, "signed": signed(revoked)}
    return json.dumps({"grant": {"id": revoked.id, "state": "revoked", "receipt": told}, "leases": []})


def run(*words: str) -> Result:
    return CliRunner().invoke(grant, ["verify-receipt", *words])


def test_what_is_signed_names_the_grant_its_times_and_the_proof_for_each_lease(plane: FakePlane) -> None:
    revoked = ended(plane)
    told = verified(signed(revoked), public_keys(jwks(*plane.receipt_keys)))
    assert {name: told[name] for name in ("grant", "subject", "entitlement", "revision", "task", "why")} == {
        "grant": revoked.id,
        "subject": revoked.subject,
        "entitlement": revoked.entitlement,
        "revision": revoked.revision,
        "task": revoked.task,
        "why": "completed",
    }
    assert told["verified"] is True
    assert str(told["revoked_at"]).endswith("Z")
    assert str(told["requested_at"]) <= str(told["issued_at"]) <= str(told["revoking_at"]) <= str(told["revoked_at"])
    assert revoked.receipt is not None
    proof: Any = told["ended"]
    assert [(end["lease"], end["evidence"]) for end in proof] == [
        (end.lease, end.evidence) for end in revoked.receipt.ended
    ]


def test_nothing_of_it_could_log_in_to_vault(plane: FakePlane) -> None:
    revoked = ended(plane)
    payload = json.loads(base64.urlsafe_b64decode(signed(revoked).split(".")[1] + "=="))
    assert list(payload) == ["receipt"]  # no audience, no subject, no times that a login looks at
    assert plane.receipt_keys[0]["kid"] != plane.task_key["kid"]


def test_a_receipt_is_stored_with_its_signature_and_one_that_is_older_than_signing_without(plane: FakePlane) -> None:
    revoked = ended(plane)
    assert json.loads(grant_row(revoked)["receipt"])["signed"] == signed(revoked)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_receipt_that_was_changed_anywhere_proves_nothing(plane: FakePlane, part: int) -> None:
    parts = signed(ended(plane)).split(".")
    at = len(parts[part]) // 2
    parts[part] = parts[part][:at] + ("A" if parts[part][at] != "A" else "B") + parts[part][at + 1 :]
    with pytest.raises(ReceiptBrokenError):
        verified(".".join(parts), public_keys(jwks(*plane.receipt_keys)))


def test_somebody_else_s_signature_proves_nothing(plane: FakePlane) -> None:
    forged: JsonObject = {"receipt": {"grant": "gr_x", "verified": True}}
    keys = public_keys(jwks(*plane.receipt_keys))
    with pytest.raises(ReceiptBrokenError, match="none of the keys"):
        verified(generate().sign(forged).reveal(), keys)
    unsigned = f"{_part({'alg': 'none', 'kid': plane.receipt_keys[0]['kid']})}.{_part(forged)}."
    with pytest.raises(ReceiptBrokenError):
        verified(unsigned, keys)
    with pytest.raises(ReceiptBrokenError):
        verified("no receipt at all", keys)


def _part(value: JsonObject) -> str:
    return base64.urlsafe_b64encode(canonical(value)).rstrip(b"=").decode()


def test_what_the_same_key_signed_for_another_purpose_is_no_receipt() -> None:
    key = generate()
    others: list[JsonObject] = [{"sub": "x"}, {"receipt": "x"}, {"receipt": {}, "aud": "shorthold-tasks"}]
    for claims in others:
        with pytest.raises(ReceiptBrokenError, match="no receipt"):
            verified(key.sign(claims).reveal(), public_keys(jwks(key.jwk)))


def test_after_a_change_of_key_old_receipts_stay_good_and_new_ones_have_the_new_key(tmp_path: Path) -> None:
    before = receipt_keys(tmp_path)
    assert receipt_keys(tmp_path).public == before.public  # a restart changes nothing
    (tmp_path / FILE).rename(tmp_path / "receipt-2026.pem")
    after = receipt_keys(tmp_path)
    assert after.signer.kid != before.signer.kid
    assert [key["kid"] for key in after.public] == [after.signer.kid, before.signer.kid]
    keys = public_keys(jwks(*after.public))
    for signer in (before.signer, after.signer):
        assert verified(_receipt(signer), keys) == {"grant": "gr_x"}
    (tmp_path / "receipt-2026.pem").unlink()
    with pytest.raises(ReceiptBrokenError, match="none of the keys"):
        verified(_receipt(before.signer), public_keys(jwks(*receipt_keys(tmp_path).public)))


def _receipt(signer: SigningKey) -> str:
    return signer.sign({"receipt": {"grant": "gr_x"}}).reveal()


def test_a_public_key_in_pem_will_do() -> None:
    key = generate()
    assert verified(_receipt(key), public_keys(key.public_pem)) == {"grant": "gr_x"}


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"keys": 1}', '{"keys": [{"kty": "EC"}]}', "-----BEGIN x"])
def test_keys_that_are_none_are_told_so(content: str) -> None:
    with pytest.raises(ConfigurationError, match="neither"):
        public_keys(content)


def test_the_command_checks_a_file_offline(plane: FakePlane, tmp_path: Path) -> None:
    revoked = ended(plane)
    keys, whole, bare = tmp_path / "jwks.json", tmp_path / "grant.json", tmp_path / "receipt.jws"
    keys.write_text(jwks(plane.task_key, *plane.receipt_keys))
    whole.write_text(shown(revoked))
    bare.write_text(signed(revoked) + "\n")
    for file in (whole, bare):
        done = run(str(file), "--keys", str(keys), "-o", "json")
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["grant"] == revoked.id
    assert "verified gone" in run(str(whole), "--keys", str(keys)).output


def test_the_command_says_what_was_signed_and_not_what_stands_around_it(plane: FakePlane, tmp_path: Path) -> None:
    keys, file = tmp_path / "jwks.json", tmp_path / "grant.json"
    keys.write_text(jwks(*plane.receipt_keys))
    revoked = ended(plane)
    file.write_text(shown(revoked).replace(revoked.id, "gr_" + "b" * 24, 1))
    done = run(str(file), "--keys", str(keys))
    assert isinstance(done.exception, ReceiptBrokenError)
    assert revoked.id in done.exception.detail


def test_a_receipt_that_is_not_verified_is_exit_5(tmp_path: Path) -> None:
    plane = FakePlane(compiled_entitlement(scopes=CERTIFICATE))
    keys, file = tmp_path / "jwks.json", tmp_path / "grant.json"
    keys.write_text(jwks(*plane.receipt_keys))
    file.write_text(shown(ended(plane)))
    done = run(str(file), "--keys", str(keys))
    assert done.exit_code == 5
    assert "Not everything was verified gone" in done.output


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"grant": {"id": "gr_1", "state": "revoking", "receipt": null}}', "it is revoking"),
        ('{"grant": {"id": "gr_1", "state": "revoked", "receipt": {"signed": null}}}', "no signed receipt"),
        ("{}", "no grant"),
        ("{", "neither JSON"),
    ],
)
def test_a_file_without_a_receipt_is_told_so(tmp_path: Path, content: str, says: str) -> None:
    file, keys = tmp_path / "grant.json", tmp_path / "jwks.json"
    file.write_text(content)
    keys.write_text(jwks())
    done = run(str(file), "--keys", str(keys))
    assert isinstance(done.exception, ReceiptBrokenError)
    assert says in done.exception.detail


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(str(tmp_path / "none.json"), "--keys", str(tmp_path / "none"))
    assert isinstance(done.exception, ConfigurationError)
    assert "none" in done.exception.detail
