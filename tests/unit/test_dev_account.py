"""Whom PostgreSQL runs as, and what that account reaches."""

import os
from pathlib import Path

from controlplane.dev.account import Account, unprivileged

STRANGER = Account(name="stranger", uid=987654, gid=987654)


def test_an_account_reaches_a_file_only_if_every_directory_above_lets_it_through(tmp_path: Path) -> None:
    deep = tmp_path / "one" / "two"
    deep.mkdir(parents=True)
    file = deep / "program"
    file.write_text("")
    file.chmod(0o755)
    assert not STRANGER.reaches(file)  # pytest's own directory is closed
    assert Account(name="me", uid=os.getuid(), gid=os.getgid()).reaches(file)
    assert STRANGER.reaches(Path("/bin/sh"))


def test_a_closed_directory_stops_its_own_owner_too(tmp_path: Path) -> None:
    owner = Account(name="me", uid=os.getuid(), gid=os.getgid())
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "program").write_text("")
    closed.chmod(0o077)
    try:
        assert not owner.reaches(closed / "program")
    finally:
        closed.chmod(0o700)


def test_root_drops_to_an_account_without_privileges_and_everybody_else_stays_who_they_are() -> None:
    account = unprivileged()
    assert (account is not None) == (os.geteuid() == 0)
    assert account is None or account.uid != 0
