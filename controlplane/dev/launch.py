"""Starts one server, detached: run as a script with a description on stdin, it is gone once the server runs.

The server's record is written by the server's own process before the server's program takes over. So there is no
instant at which a process runs that the record does not name, whenever whoever asked for it is interrupted or killed.
"""

import fcntl
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn


def birth(pid: int) -> str | None:
    """When process `pid` was born, in a form that no other process with this number shares; None where it is dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _birth_by_ps(pid)
    # A zombie has ended, and only its parent has not looked; but its last threads may still hold its ports and files.
    return None if fields[0] in "ZX" and int(fields[17]) <= 1 else f"{boot}:{fields[19]}"


def recorded(record: Path) -> int | None:
    """The process that `record` names while it runs. A number that went to somebody else is not it."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        pid, born = int(content["pid"]), str(content["birth"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if birth(pid) == born else None


def _birth_by_ps(pid: int) -> str | None:
    asked = ["/bin/ps", "-p", str(pid), "-o", "stat=,lstart="]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()  # noqa: S603 # a number
    return " ".join(found[1:]) if found and not found[0].startswith("Z") else None


def main() -> None:
    """Fork, and wait until the child has become the server; exit 1 with a sentence on stderr where it could not."""
    wanted = json.load(sys.stdin)
    record = Path(wanted["record"])
    # Held until exec: whoever asks again, because the one who asked first was killed, waits for how that ended.
    lock = os.open(record.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if recorded(record) is not None:
        return
    reading, writing = os.pipe()  # closed by exec: the end of the file means that the server runs
    if os.fork() == 0:
        os.close(reading)
        _become(wanted, writing)
    os.close(writing)
    with os.fdopen(reading) as told:
        failure = told.read()
    if failure:
        sys.exit(failure)


def _become(wanted: dict[str, Any], writing: int) -> NoReturn:
    try:
        os.setsid()
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold every secret
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(wanted["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _write(Path(wanted["record"]), {"pid": os.getpid(), "birth": birth(os.getpid())})
        if wanted["account"] is not None:
            uid, gid = wanted["account"]
            os.setgroups([gid])
            os.setgid(gid)
            os.setuid(uid)
        os.chdir(wanted["cwd"])
        os.execve(wanted["command"][0], wanted["command"], wanted["environment"])  # noqa: S606 # no shell is wanted
    except OSError as error:
        Path(wanted["record"]).unlink(missing_ok=True)
        os.write(writing, str(error).encode())
    finally:
        os._exit(1)


def _write(record: Path, content: dict[str, Any]) -> None:
    draft = record.with_suffix(".new")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(record)


if __name__ == "__main__":
    main()
