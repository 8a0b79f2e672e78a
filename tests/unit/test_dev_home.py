"""A project's directory: closed to others, whole or refused, and never two projects' at once."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.dev.home import Home, kept_password, write_private
from controlplane.dev.stack import Stack
from controlplane.model.errors import LocalServerError


def test_the_directory_and_everything_in_it_is_closed_to_others_and_the_project_is_left_as_it_was(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o751)
    home = Home.of(tmp_path)
    home.make()
    kept_password(home.part("postgres") / "x.password")
    assert [path for path in (home.directory, *home.directory.rglob("*")) if path.stat().st_mode & 0o077] == []
    assert tmp_path.stat().st_mode & 0o777 == 0o751
    assert (home.directory / ".gitignore").read_text() == "*\n"


def test_what_was_remembered_is_there_for_the_next_command(tmp_path: Path) -> None:
    home = Home.of(tmp_path)
    home.make()
    home.remember("vault_addr", "https://vault.example")
    again = Home.of(tmp_path)
    again.make()
    assert again.id == home.id
    assert again.recall("vault_addr") == "https://vault.example"
    assert again.recall("database_url") is None


def test_a_directory_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    home = Home.of(tmp_path)
    home.directory.mkdir()
    home.directory.chmod(0o755)
    with pytest.raises(LocalServerError, match="0700"):
        home.make()


def test_a_link_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    home = Home.of(tmp_path)
    home.directory.symlink_to(tmp_path)
    with pytest.raises(LocalServerError):
        home.make()
    home.directory.unlink()
    home.directory.write_text("x")
    with pytest.raises(LocalServerError):
        home.make()


def test_a_copied_project_is_refused_and_a_moved_one_goes_on(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    home = Home.of(tmp_path / "one")
    home.make()
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with pytest.raises(LocalServerError, match="copy of"):
        Home.of(tmp_path / "two").make()
    shutil.rmtree(tmp_path / "one")
    Home.of(tmp_path / "two").make()
    assert Home.of(tmp_path / "two").id


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    home = Home.of(tmp_path)
    home.make()
    ports = '{"id": "x", "home": "/", "facts": {}, "ports": {"openbao": %s}}'
    for damage in ("", "{", "[]", '{"id": "x"}', ports % '"4002"', ports % "0", ports % "null"):
        write_private(home.directory / "state.json", damage)
        with pytest.raises(LocalServerError, match=r"state\.json.*shorthold dev down"):
            Home.of(tmp_path).make()


def test_a_damaged_state_file_does_not_stop_everything_from_being_stopped(tmp_path: Path) -> None:
    Home.of(tmp_path).make()
    write_private(tmp_path / ".shorthold" / "state.json", "{")
    told: list[str] = []
    Stack(project=tmp_path, say=told.append).down()
    assert len(told) == 4


def test_a_directory_that_lost_its_state_file_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    home = Home.of(tmp_path)
    home.make()
    home.part("openbao")
    (home.directory / "state.json").unlink()
    with pytest.raises(LocalServerError, match="openbao"):
        home.make()


def test_two_commands_at_once_wait_for_one_another(tmp_path: Path) -> None:
    home = Home.of(tmp_path)
    home.make()
    with home.lock(), pytest.raises(LocalServerError, match="at work"), home.lock(timedelta(seconds=0)):
        pass
    with home.lock(timedelta(seconds=0)):
        pass


def test_a_password_is_made_once_and_never_shown(tmp_path: Path) -> None:
    first, second = kept_password(tmp_path / "p"), kept_password(tmp_path / "p")
    assert first == second
    assert len(first.reveal()) >= 32
    assert first != kept_password(tmp_path / "q")
    assert first.reveal() not in repr(first)
