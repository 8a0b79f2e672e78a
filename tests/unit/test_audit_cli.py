"""`shorthold audit` as a person or a script uses it."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from controlplane.cli.main import main
from controlplane.keys.audit import load_or_create
from controlplane.model.event import Kind
from controlplane.model.grant import GrantId
from controlplane.stores.sql import open_store
from controlplane.testing.store import sample_event

Shell = Callable[..., tuple[int, str, str]]
GRANTS = [GrantId("gr_" + letter * 24) for letter in "ab"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with settings, keys and a store of five events, as `serve` leaves them."""
    (tmp_path / "shorthold.toml").write_text(
        f'[store]\nurl = "sqlite:///{tmp_path}/store.db"\n[keys]\ndirectory = "{tmp_path}/keys"\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHORTHOLD_CONFIG", raising=False)
    store = open_store(f"sqlite:///{tmp_path}/store.db", audit_key=load_or_create(tmp_path / "keys" / "audit.key"))
    for number in range(1, 6):
        with store.transaction() as tx:
            tx.append(sample_event(number, Kind.LEASE_ISSUED, GRANTS[number % 2]))
    store.close()
    return tmp_path


@pytest.fixture
def shell(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Runs `shorthold …` in that directory: exit status, stdout, stderr."""
    assert home.is_dir()

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shorthold", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, told.out, told.err

    return run


def change(store: Path, statement: str) -> None:
    with closing(sqlite3.connect(store, isolation_level=None)) as database:
        database.execute("DROP TRIGGER IF EXISTS an_event_never_changes")
        database.execute("DROP TRIGGER IF EXISTS an_event_is_never_removed")
        database.execute(statement)


def test_an_intact_log_is_verified_with_status_0_and_a_checkpoint(shell: Shell) -> None:
    status, out, err = shell("audit", "verify", "-o", "json")
    found = json.loads(out)
    assert (status, found["intact"], found["records"], found["seq"]) == (0, True, 5, 5)
    assert f"5:{found['mac']}" in err


def test_l03_a_broken_log_is_status_2_and_names_the_first_bad_record(shell: Shell, home: Path) -> None:
    change(home / "store.db", "UPDATE events SET body = '{\"number\":9}' WHERE seq IN (3, 4)")
    status, out, err = shell("audit", "verify", "-o", "json")
    found = json.loads(out)
    assert status == 2
    assert found == {
        "intact": False,
        "seq": 3,
        "kind": "lease.issued",
        "fault": "changed",
        "detail": found["detail"],
        "what_to_do": found["what_to_do"],
    }
    assert "record 3" in err
    assert "What to do:" in err
    assert "Traceback" not in err


def test_a_copy_is_verified_with_the_key_named(shell: Shell, home: Path) -> None:
    (home / "elsewhere").mkdir()
    shutil.copy(home / "store.db", home / "elsewhere" / "copy.db")
    shutil.copy(home / "keys" / "audit.key", home / "elsewhere" / "key")
    shutil.rmtree(home / "keys")
    words = ["audit", "verify", "--store", f"sqlite:///{home}/elsewhere/copy.db"]
    assert shell(*words, "--key-file", str(home / "elsewhere" / "key"))[0] == 0
    status, _, err = shell(*words)
    assert status == 1
    assert "no audit key" in err
    assert not (home / "keys").exists()
    assert sorted(file.name for file in (home / "elsewhere").iterdir()) == ["copy.db", "key"]


def test_l03_what_was_cut_off_since_a_checkpoint_is_found(shell: Shell, home: Path) -> None:
    shutil.copy(home / "store.db", home / "old.db")
    store = open_store(f"sqlite:///{home}/store.db", audit_key=load_or_create(home / "keys" / "audit.key"))
    with store.transaction() as tx:
        tx.append(sample_event(6))
    store.close()
    found = json.loads(shell("audit", "verify", "-o", "json")[1])
    checkpoint = f"{found['seq']}:{found['mac']}"
    assert shell("audit", "verify", "--from", checkpoint)[0] == 0
    shutil.copy(home / "old.db", home / "store.db")
    assert shell("audit", "verify")[0] == 0
    status, _, err = shell("audit", "verify", "--from", checkpoint)
    assert status == 2
    assert "before the checkpoint 6" in err


@pytest.mark.parametrize("text", ["5", "x:y", "0:" + "0" * 64, "5:" + "A" * 64])
def test_a_checkpoint_that_is_none_is_wrong_use(shell: Shell, text: str) -> None:
    status, _, err = shell("audit", "verify", "--from", text)
    assert status == 1
    assert "SEQ:MAC" in err


@pytest.mark.parametrize("command", ["tail", "verify", "export"])
def test_a_store_that_is_not_there_is_status_2_and_is_not_made(shell: Shell, home: Path, command: str) -> None:
    status, _, err = shell("audit", command, "--store", f"sqlite:///{home}/none.db")
    assert status == 2
    assert "no database" in err
    assert not (home / "none.db").exists()


def test_tail_shows_the_last_events_oldest_first(shell: Shell) -> None:
    found = json.loads(shell("audit", "tail", "-n", "2", "-o", "json")[1])
    assert [event["seq"] for event in found] == [4, 5]
    assert found[1]["body"] == {"number": 5}
    assert len(json.loads(shell("audit", "tail", "-o", "json")[1])) == 5
    status, out, _ = shell("audit", "tail")
    assert status == 0
    assert "lease.issued" in out
    assert "seq: 5" in shell("audit", "tail", "-o", "yaml")[1]


def test_tail_of_one_grant_shows_only_its_events(shell: Shell) -> None:
    found = json.loads(shell("audit", "tail", "--grant", GRANTS[0], "-o", "json")[1])
    assert [event["seq"] for event in found] == [2, 4]


def test_an_id_that_is_none_is_wrong_use_and_not_an_empty_answer(shell: Shell) -> None:
    status, out, err = shell("audit", "tail", "--grant", "nope")
    assert (status, out) == (1, "")
    assert "no grant id" in err


def test_a_line_of_tail_ends_where_its_words_end(shell: Shell) -> None:
    lines = shell("audit", "tail")[1].splitlines()
    assert len(lines) == 6
    assert all(line == line.rstrip() and len(line) < 120 for line in lines)


def test_l06_nothing_in_the_log_moves_a_terminal(shell: Shell, home: Path) -> None:
    change(home / "store.db", "UPDATE events SET grant_id = 'gr' || char(27) || '[2J' || char(10) || '99  forged'")
    out = shell("audit", "tail")[1]
    assert "\x1b" not in out
    assert "\n99  forged" not in out


def test_a_damaged_record_is_shown_in_its_place(shell: Shell, home: Path) -> None:
    change(home / "store.db", "UPDATE events SET body = 'x' WHERE seq = 2")
    assert "its body does not read back" in shell("audit", "tail")[1]
    status, out, err = shell("audit", "export")
    assert status == 2
    assert len(out.splitlines()) == 5
    assert "record 2" in err


def test_export_writes_one_line_an_event(shell: Shell) -> None:
    status, out, _ = shell("audit", "export")
    assert status == 0
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [1, 2, 3, 4, 5]
    assert len(shell("audit", "export", "--format", "csv")[1].splitlines()) == 6


def test_export_to_a_file_is_whole_and_its_owners_only(shell: Shell, home: Path) -> None:
    status, out, _ = shell("audit", "export", "--out", "log.jsonl")
    assert (status, out) == (0, "")
    assert stat.S_IMODE((home / "log.jsonl").stat().st_mode) == 0o600
    assert len((home / "log.jsonl").read_text().splitlines()) == 5
    status, _, err = shell("audit", "export", "--out", "none/log.jsonl")
    assert status == 1
    assert "cannot be written" in err
    assert not list(home.glob(".*part"))


def test_export_to_a_pipe_or_a_device_writes_to_it_and_leaves_it_what_it_is(shell: Shell, home: Path) -> None:
    os.mkfifo(home / "pipe")
    reader = os.open(home / "pipe", os.O_RDWR)  # both ends, so that nobody waits for the other
    try:
        assert shell("audit", "export", "--out", "pipe")[0] == 0
        assert stat.S_ISFIFO((home / "pipe").lstat().st_mode)
        assert len(os.read(reader, 65_536).splitlines()) == 5
    finally:
        os.close(reader)


def test_export_writes_through_a_link_and_follows_no_draft_that_somebody_laid(shell: Shell, home: Path) -> None:
    (home / "victim").write_text("untouched")
    (home / ".log.jsonl.part").symlink_to(home / "victim")
    (home / "link").symlink_to(home / "log.jsonl")
    assert shell("audit", "export", "--out", "link")[0] == 0
    assert (home / "link").is_symlink()
    assert len((home / "log.jsonl").read_text().splitlines()) == 5
    assert shell("audit", "export", "--out", "log.jsonl")[0] == 0
    assert (home / "victim").read_text() == "untouched"


def test_more_lines_than_anybody_can_read_are_wrong_use(shell: Shell) -> None:
    status, out, err = shell("audit", "tail", "-n", "99999999999999999999")
    assert (status, out) == (1, "")
    assert "range" in err


def test_tail_follows_what_a_control_plane_writes(home: Path) -> None:
    command = [sys.executable, "-c", "from controlplane.cli.main import main; main()", "audit", "tail"]
    with subprocess.Popen([*command, "-n", "1", "-f", "-o", "json"], cwd=home, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        seen = [json.loads(process.stdout.readline())["seq"]]
        store = open_store(f"sqlite:///{home}/store.db", audit_key=load_or_create(home / "keys" / "audit.key"))
        try:
            for number in (6, 7):
                with store.transaction() as tx:
                    tx.append(sample_event(number))
            seen += [json.loads(process.stdout.readline())["seq"] for _ in range(2)]
        finally:
            store.close()
            process.terminate()
    assert seen == [5, 6, 7]
