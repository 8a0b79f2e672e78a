"""The file for what the store cannot take: crashes, full disks, and whoever writes into it."""

import fcntl
import resource
import signal
import stat
from pathlib import Path

import pytest

from controlplane.model.event import Event, Kind
from controlplane.model.grant import GrantId
from controlplane.model.secret import Secret
from controlplane.stores.spool import FileSpool
from controlplane.testing.store import AUDIT_KEY, sample_event


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def ended(number: int) -> Event:
    return sample_event(number, kind=Kind.GRANT_ENDED, grant=GrantId(f"gr_{number}"))


def test_it_is_its_owners_only_and_takes_its_room_at_once(path: Path) -> None:
    FileSpool(path, AUDIT_KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_blocks * 512 >= path.stat().st_size >= 256 * 1024


def test_l01_on_a_full_disk_it_takes_what_the_store_cannot(path: Path) -> None:
    """Nothing grows beyond what is there, as on a disk without a free block."""
    spool = FileSpool(path, AUDIT_KEY)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, limits[1]))
    try:
        for number in range(1, 101):
            spool.put(ended(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)
    assert FileSpool(path, AUDIT_KEY).waiting() == [ended(number) for number in range(1, 101)]


def test_l01_where_no_file_can_be_written_memory_is_left(path: Path) -> None:
    path.mkdir()
    spool = FileSpool(path, AUDIT_KEY)
    for number in (1, 1, 2):
        spool.put(ended(number))
    assert spool.waiting() == [ended(1), ended(2)]
    spool.forget(ended(1))
    assert spool.waiting() == [ended(2)]


def test_a_process_that_was_stopped_with_the_file_in_its_hands_keeps_nobody_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.stores.spool._TRIES", 2)
    spool = FileSpool(path, AUDIT_KEY)
    with path.open("r+b") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        spool.put(ended(1))
    assert spool.waiting() == [ended(1)]
    assert FileSpool(path, AUDIT_KEY).waiting() == []


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_line_that_a_crash_cut_off_is_passed_over_and_spoils_none_after_it(path: Path, kept: float) -> None:
    spool = FileSpool(path, AUDIT_KEY)
    spool.put(ended(1))
    whole = path.read_bytes().rstrip(b"\0")
    spool.put(ended(2))
    both = path.read_bytes().rstrip(b"\0")
    cut = len(whole) + int((len(both) - len(whole)) * kept)
    with path.open("r+b") as file:
        file.seek(cut)
        file.write(bytes(len(both) - cut))
    spool = FileSpool(path, AUDIT_KEY)
    spool.put(ended(3))
    assert spool.waiting() == [ended(1), ended(3)]


def test_a_line_that_somebody_else_wrote_is_no_event(path: Path) -> None:
    FileSpool(path, Secret("cd" * 32)).put(ended(1))
    spool = FileSpool(path, AUDIT_KEY)
    spool.put(ended(2))
    assert spool.waiting() == [ended(2)]


def test_a_link_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    path.symlink_to(theirs)
    FileSpool(path, AUDIT_KEY).put(ended(1))
    assert theirs.read_text() == "precious"
