"""Signing keys: made once, readable by their owner only, and never shown."""

import base64
import copy
import hashlib
import os
import pickle
import stat
import threading
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

from controlplane.keys.files import SigningKey, generate, load, load_or_create
from controlplane.model.errors import ConfigurationError


def write_key(path: Path, key: object, encryption: KeySerializationEncryption | None = None) -> Path:
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    path.chmod(0o600)
    return path


def test_a_key_is_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "task.pem"
    first = load_or_create(path)
    assert load_or_create(path).kid == load(path).kid == first.kid


def test_two_keys_differ(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "one").kid != load_or_create(tmp_path / "other").kid


def test_only_its_owner_can_read_the_key_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "task.pem"
    before = os.umask(0)
    try:
        load_or_create(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["task.pem"]


def test_starting_at_once_gives_everybody_the_same_key(tmp_path: Path) -> None:
    path, start = tmp_path / "keys" / "task.pem", threading.Barrier(8)
    kids: list[str] = []

    def begin() -> None:
        start.wait()
        kids.append(load_or_create(path).kid)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kids) == 8
    assert len(set(kids)) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["task.pem"]


def test_a_missing_key_is_never_made_by_reading_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no signing key at"):
        load(tmp_path / "task.pem")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_may_read_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:  # A29
    path = write_key(tmp_path / "task.pem", ec.generate_private_key(ec.SECP256R1()))
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_or_create(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    foreign = (
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    )
    for number, key in enumerate(foreign):
        with pytest.raises(ConfigurationError, match="P-256"):
            load_or_create(write_key(tmp_path / str(number), key))


@pytest.mark.parametrize("content", [b"", b"hunter2-not-a-key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n", b"\x00" * 100])
def test_a_broken_key_is_refused_kept_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "task.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="is no signing key") as caught:
        load_or_create(path)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert path.read_bytes() == content


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ConfigurationError, match="unencrypted"):
        load(write_key(tmp_path / "task.pem", key, BestAvailableEncryption(b"password")))


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigurationError):
            load_or_create(path)


def test_a_huge_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "task.pem"
    path.touch(0o600)
    os.truncate(path, 1 << 40)
    with pytest.raises(ConfigurationError, match="too long"):
        load(path)


def test_a_place_where_nothing_can_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="signing key"):
        load_or_create(tmp_path / "file" / "task.pem")


def test_what_it_signs_verifies_with_the_public_half_and_names_its_key() -> None:
    key = generate()
    token = key.sign({"sub": "wl_1", "aud": "mount", "exp": 32503680000, "text": "åß漢"}).reveal()
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "JWT", "kid": key.kid}
    for public in (key.public_pem, jwt.PyJWK.from_dict(dict(key.jwk))):
        claims = jwt.decode(token, public, algorithms=["ES256"], audience="mount")
        assert claims == {"sub": "wl_1", "aud": "mount", "exp": 32503680000, "text": "åß漢"}


def test_the_kid_is_the_rfc_7638_thumbprint() -> None:
    key = generate()
    required = f'{{"crv":"P-256","kty":"EC","x":"{key.jwk["x"]}","y":"{key.jwk["y"]}"}}'
    digest = hashlib.sha256(required.encode()).digest()
    assert key.kid == base64.urlsafe_b64encode(digest).decode().rstrip("=")


def test_the_jwk_keeps_leading_zeros_of_a_coordinate() -> None:
    # RFC 7518 6.2.1.2: always 32 octets. About one key in 128 starts one of its coordinates with a zero octet.
    private = next(
        made
        for _ in range(20_000)
        if (made := ec.generate_private_key(ec.SECP256R1())).public_key().public_numbers().x < 1 << 248
    )
    assert len(SigningKey(private).jwk["x"]) == 43


def test_the_private_half_is_never_shown_copied_or_pickled() -> None:
    key = generate()
    assert "d" not in key.jwk
    assert repr(key) == str(key) == f"SigningKey(kid={key.kid!r})"
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(key)
