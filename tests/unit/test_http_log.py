"""A log line may get lost, and nothing else with it."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")

SCRIPT = """
import os, structlog
from controlplane.http.log import configure
configure()
structlog.stdlib.get_logger("x").warning("grant_not_reaped", grant="gr_1")
os.write(1, b"went on")
os._exit(0)  # an interpreter that ends in order complains of the disk
"""


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
def test_a_log_on_a_full_disk_stops_nobody_from_working() -> None:
    with FULL.open("wb") as full:
        run = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=full, check=False)
    assert run.stdout == b"went on"
