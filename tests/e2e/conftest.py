"""What the stories on the shared servers have in common."""

from collections.abc import Generator

import pytest

from controlplane.dev.stack import Stack
from controlplane.testing.served import Witness, witness


@pytest.fixture
def seer(stack: Stack) -> Generator[Witness]:
    """Begins to look with the test: what an earlier one left on the servers is not this one's."""
    looking = witness(stack)
    yield looking
    looking.close()
