"""The library that checks signatures is the one that all of group J was run against (J48)."""

import re
from importlib.metadata import version
from pathlib import Path

import jwt

ROOT = Path(__file__).resolve().parents[2]


def test_j48_pyjwt_is_pinned_to_the_release_that_is_tested() -> None:
    """No matrix of releases: one is locked, with its hashes, and a new one comes in only by running everything."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = re.findall(r"^pyjwt==(\S+) \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", lock, re.MULTILINE)
    assert pinned == [jwt.__version__] == [version("pyjwt")]
