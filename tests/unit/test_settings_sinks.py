"""Sinks in the settings: what is wrong is named, and neither a secret nor an address is ever shown."""

from pathlib import Path

import pytest

from controlplane.model.errors import ConfigurationError
from controlplane.model.event import Kind
from controlplane.settings import Settings, load
from controlplane.sinks import kinds

WEBHOOK = """\
[[sinks]]
name = "pager"
kind = "webhook"
url = "https://hooks.acme.example/canary-path"
secret_file = "keys/pager.secret"
events = ["grant.requested", "glass.broken"]
"""


def loaded(directory: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (directory / "shorthold.toml").write_text(text)
    monkeypatch.chdir(directory)
    monkeypatch.delenv("SHORTHOLD_CONFIG", raising=False)
    return load()


def test_a_sink_is_read_by_the_options_of_its_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = WEBHOOK + '[[sinks]]\nname = "copy"\nkind = "jsonl"\npath = "events.jsonl"\nsince = "beginning"\n'
    pager, copy = loaded(tmp_path, text, monkeypatch).sinks
    assert pager.events == (Kind.GRANT_REQUESTED, Kind.GLASS_BROKEN)
    assert (pager.since, copy.since, copy.events) == ("now", "beginning", ())
    assert {type(pager), type(copy)} == {kinds()[word].options for word in ("webhook", "jsonl")}
    dumped = loaded(tmp_path, text, monkeypatch).model_dump_json()
    assert "pager.secret" in dumped
    assert "whsec_" not in dumped


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (('kind = "webhook"', 'kind = "pigeon"'), "kind must be one of: jsonl, webhook"),
        (("https://hooks", "http://hooks"), "url: Value error, it must be https: plain http is for loopback only"),
        (("https://hooks", "https://ann:pw@hooks"), "url: Value error, it is not a plain http"),
        (("https://hooks", "ftp://hooks"), "url: Value error, it is not a plain http"),
        (("acme.example/", "acme.example:70000/"), "url: Value error, there is no such port"),
        (("glass.broken", "glas.broken"), "events"),
        (('name = "pager"', 'name = "P"'), "name"),
        (("kind = ", 'timeout = "31s"\nkind = '), "timeout"),
        (("kind = ", 'secret = "canary"\nkind = '), "secret: Extra inputs are not permitted"),
    ],
)
def test_what_is_wrong_is_named_and_its_value_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edit: tuple[str, str], told: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, WEBHOOK.replace(*edit), monkeypatch)
    assert told in caught.value.detail
    assert "canary" not in caught.value.detail


def test_two_sinks_of_one_name_would_share_a_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="every sink needs a name of its own"):
        loaded(tmp_path, WEBHOOK * 2, monkeypatch)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://localhost/", "http://[::1]:9", "https://a.example"])
def test_plain_http_is_for_this_machine_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    text = WEBHOOK.replace("https://hooks.acme.example/canary-path", url)
    assert len(loaded(tmp_path, text, monkeypatch).sinks) == 1


def test_every_kind_is_a_file_and_called_like_it() -> None:
    assert {kind.word for kind in kinds().values()} == kinds().keys()
    for kind in kinds().values():
        assert kind.options.model_fields["kind"].default == kind.word
