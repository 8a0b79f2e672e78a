"""The audit key's file: made once, readable by its owner only."""

import os
import stat
import threading
from pathlib import Path

import pytest

from controlplane.keys.audit import load, load_or_create
from controlplane.model.errors import ConfigurationError


def test_a_key_is_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.key"
    first = load_or_create(path)
    assert load_or_create(path) == first == load(path)
    assert len(bytes.fromhex(first.reveal())) == 32


def test_two_keys_differ(tmp_path: Path) -> None:
    assert load_or_create(tmp_path / "one") != load_or_create(tmp_path / "other")


def test_only_its_owner_can_read_the_key_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "audit.key"
    before = os.umask(0)
    try:
        load_or_create(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["audit.key"]


def test_starting_at_once_gives_everybody_the_same_key(tmp_path: Path) -> None:
    path, start = tmp_path / "keys" / "audit.key", threading.Barrier(8)
    found: list[str] = []

    def begin() -> None:
        start.wait()
        found.append(load_or_create(path).reveal())

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["audit.key"]


def test_a_missing_key_is_never_made_by_reading_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no audit key"):
        load(tmp_path / "audit.key")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "audit.key"
    load_or_create(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_or_create(path)


@pytest.mark.parametrize("text", ["", "ab" * 31, "ab" * 33, "zz" * 32, "AB" * 32 + "\nmore"])
def test_a_file_that_is_no_key_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "audit.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="64 hex digits") as caught:
        load_or_create(path)
    assert not text or text not in caught.value.detail


def test_a_directory_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path)


def test_a_place_that_cannot_hold_a_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be"):
        load_or_create(tmp_path / "file" / "audit.key")
