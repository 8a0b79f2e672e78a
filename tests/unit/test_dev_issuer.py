"""Claims as the command line writes them."""

import pytest

from controlplane.dev.issuer import mint, nested
from controlplane.keys.files import generate
from controlplane.model.errors import InvalidRequestError
from controlplane.testing.clock import FakeClock
from controlplane.testing.ids import CountingIds


def test_a_slash_descends() -> None:
    assert nested({"a": 1, "k/x": "1", "k/y/z": [2]}) == {"a": 1, "k": {"x": "1", "y": {"z": [2]}}}


@pytest.mark.parametrize("paths", [("a", "a/b"), ("a/b", "a"), ("/a",), ("a/",), ("a//b",), ("",)])
def test_a_path_that_means_nothing_or_two_things_is_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequestError):
        nested(dict.fromkeys(paths, "x"))


@pytest.mark.parametrize("own", ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"])
def test_no_claim_replaces_one_that_the_issuer_answers_for(own: str) -> None:
    with pytest.raises(InvalidRequestError, match=own):
        mint(generate(), "http://i", "s", now=FakeClock().now(), ids=CountingIds(), claims={own: "x"})
