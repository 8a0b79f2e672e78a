"""Adding an engine is one file plus its example in the documentation: proved with a toy, in a folder of its own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = Path(__file__).parent / "toy"

PLUGIN = """
import sys
import controlplane.engines
controlplane.engines.__path__.append({folder!r})
from controlplane.testing.entitlements import LAYOUT
LAYOUT.mounts["toy"] = "toy"
"""
ROW = "| `toy` | provable | yes | none | nothing: it is a toy |\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The folder of engines with one file more, and the page with one row and one section more."""
    (tmp_path / "engines").mkdir()
    shutil.copy(TOY / "engine.txt", tmp_path / "engines" / "toy.py")
    (tmp_path / "toy_plugin.py").write_text(PLUGIN.format(folder=str(tmp_path / "engines")), encoding="utf-8")
    (tmp_path / "tests" / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "docs" / "test_engines.py", tmp_path / "tests" / "docs" / "test_engines.py")
    shutil.copy(TOY / "story.txt", tmp_path / "tests" / "test_story.py")
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    example = (TOY / "engine.txt").read_text(encoding="utf-8").partition('EXAMPLE = """\\\n')[2].partition('"""')[0]
    page = page.replace("| `aws` |", f"{ROW}| `aws` |", 1)
    page = page.replace("## Adding one\n", f"## toy\n\n```yaml\n{example}```\n\n## Adding one\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "engines.md").write_text(page, encoding="utf-8")
    return tmp_path


def test_an_engine_in_one_file_is_everywhere_that_engines_are(clone: Path) -> None:
    """Its scope, roles, request, words and prober are found; what every engine has to keep is held against it, too."""
    suites = [ROOT / "tests" / "unit" / name for name in ("test_engines_every.py", "test_wording.py")]
    options = ("-q", "-rA", "-p", "toy_plugin", "-p", "no:cacheprovider", "-p", "no:xdist", "--noconftest")
    configuration = ("-c", str(ROOT / "pyproject.toml"))
    done = subprocess.run(  # our own tests
        [sys.executable, "-m", "pytest", *options, *configuration, *map(str, suites), str(clone / "tests")],
        cwd=ROOT,
        env={"PYTHONPATH": f"{clone}:{ROOT}", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert done.stdout.count("[toy]") > 8
