"""Keys that are fetched: how fresh they are, how often the issuer is asked, and what holds while it is down."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from controlplane.issuers.jose.fetch import FetchError
from controlplane.issuers.jose.keystore import COOL_DOWN, LIFETIME, REFRESH_AFTER, STALE_LIFETIME, DiscoveredKeys
from controlplane.model.errors import ConfigurationError, NotAuthenticatedError
from controlplane.outgoing import place_of
from controlplane.testing.clock import FakeClock
from controlplane.testing.issuer import FakeIssuer, IssuerKey

SECOND = timedelta(seconds=1)


class Network:
    """Stands in for the way to the issuer: counts, breaks, and waits when it is told to."""

    def __init__(self, issuer: FakeIssuer) -> None:
        self.issuer = issuer
        self.seconds = 1000.0
        self.urls: list[str] = []
        self.broken = False
        self.spoiled: dict[str, Any] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()

    def __call__(self, url: str) -> dict[str, Any]:
        self.urls.append(url)
        self.arrived.set()
        assert self.gate.wait(20)
        if self.broken:
            raise FetchError(f"{url} did not answer")
        document = self.issuer.discovery if "/.well-known/" in url else self.issuer.jwks
        return {**document, **self.spoiled}

    @property
    def fetches(self) -> int:
        """How often it was tried to get the keys."""
        return sum("/.well-known/" in url for url in self.urls)

    def pass_by(self, span: timedelta) -> None:
        self.seconds += span.total_seconds()


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer(clock=FakeClock())


@pytest.fixture
def network(issuer: FakeIssuer) -> Network:
    return Network(issuer)


@pytest.fixture
def store(network: Network) -> DiscoveredKeys:
    return DiscoveredKeys(network.issuer.url, fetch=network, monotonic=lambda: network.seconds)


def knows(store: DiscoveredKeys, key: IssuerKey) -> bool:
    try:
        return [found.kid for found in store.candidates("ES256", key.kid)] == [key.kid]
    except NotAuthenticatedError:
        return False


def background_fetch_ends() -> None:
    """Join the threads that fetch."""
    for thread in threading.enumerate():
        if thread.name == "issuer-keys":
            thread.join(60)
            assert not thread.is_alive()


def at_once(number: int, act: Callable[[], bool]) -> list[bool]:
    start, results = threading.Barrier(number), list[bool]()

    def run() -> None:
        start.wait(60)
        results.append(act())

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_keys_are_fetched_once_and_kept(store: DiscoveredKeys, network: Network, issuer: FakeIssuer) -> None:
    for _ in range(100):
        assert knows(store, issuer.keys[0])
    assert network.urls == [f"{issuer.url}/.well-known/openid-configuration", f"{issuer.url}/jwks"]


def test_j37_two_hundred_first_callers_cause_one_fetch(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    assert at_once(200, lambda: knows(store, issuer.keys[0])) == [True] * 200
    assert network.fetches == 1


def test_old_keys_are_fetched_anew_while_nobody_waits(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    assert knows(store, issuer.keys[0])
    network.pass_by(REFRESH_AFTER + SECOND)
    network.gate.clear()  # the issuer hangs from now on
    assert all(knows(store, issuer.keys[0]) for _ in range(50))
    network.gate.set()
    background_fetch_ends()
    assert network.fetches == 2
    network.pass_by(REFRESH_AFTER - SECOND)
    assert knows(store, issuer.keys[0])
    assert network.fetches == 2


def test_j33_a_new_key_works_within_the_cool_down(store: DiscoveredKeys, network: Network, issuer: FakeIssuer) -> None:
    old = issuer.keys[0]
    assert knows(store, old)
    new = issuer.rotate(keep=True)
    network.pass_by(COOL_DOWN - SECOND)
    assert not knows(store, new)
    network.pass_by(SECOND)
    assert knows(store, new)
    assert knows(store, old)


def test_j33_a_removed_key_is_refused_when_keys_have_lived(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    old = issuer.keys[0]
    assert knows(store, old)
    issuer.rotate()
    network.pass_by(LIFETIME + SECOND)
    assert not knows(store, old)


def test_j32_while_the_issuer_is_down_known_keys_work_until_they_are_stale(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    assert knows(store, issuer.keys[0])
    network.broken = True
    lived = timedelta()
    step = timedelta(minutes=3)
    while (lived := lived + step) <= STALE_LIFETIME:
        network.pass_by(step)
        assert knows(store, issuer.keys[0])
        background_fetch_ends()
    network.pass_by(step)
    with pytest.raises(NotAuthenticatedError, match="did not answer"):
        store.candidates("ES256", issuer.keys[0].kid)
    network.broken = False
    network.pass_by(COOL_DOWN)
    knows(store, issuer.keys[0])  # asks
    background_fetch_ends()
    assert knows(store, issuer.keys[0])


def test_j32_nobody_waits_for_an_issuer_that_is_known_to_be_down(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    assert knows(store, issuer.keys[0])
    network.broken = True
    network.pass_by(LIFETIME + SECOND)
    assert knows(store, issuer.keys[0])  # asked, and did not answer
    network.gate.clear()  # from now on whoever waits waits long
    network.pass_by(COOL_DOWN)
    assert knows(store, issuer.keys[0])
    network.gate.set()
    background_fetch_ends()
    assert network.fetches == 3


def test_j32_nobody_waits_for_a_hanging_issuer_whose_keys_were_never_had(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:  # A19, A21
    network.broken = True
    assert not knows(store, issuer.keys[0])  # asked, and did not answer
    network.gate.clear()  # from now on whoever waits waits long
    network.pass_by(COOL_DOWN)
    began = time.monotonic()
    assert at_once(50, lambda: knows(store, issuer.keys[0])) == [False] * 50
    assert time.monotonic() - began < 10  # seconds; who waits for this issuer waits eleven
    assert network.fetches == 2
    network.broken = False
    network.gate.set()
    background_fetch_ends()
    assert knows(store, issuer.keys[0])


def test_j32_an_unknown_key_is_refused_not_a_fault_while_the_issuer_is_down(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    assert knows(store, issuer.keys[0])
    network.broken = True
    network.pass_by(COOL_DOWN)
    with pytest.raises(NotAuthenticatedError, match="no ES256 key with kid 'other'"):
        store.candidates("ES256", "other")
    assert knows(store, issuer.keys[0])


def test_j34_a_flood_of_unknown_keys_asks_the_issuer_once_per_cool_down(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    assert knows(store, issuer.keys[0])
    for number in range(1000):
        with pytest.raises(NotAuthenticatedError):
            store.candidates("ES256", f"kid-{number}")
    assert network.fetches == 1
    network.pass_by(COOL_DOWN)
    for number in range(1000):
        with pytest.raises(NotAuthenticatedError):
            store.candidates("ES256", f"kid-{number}")
    assert network.fetches == 2


def test_j34_whoever_names_unknown_keys_waits_for_no_issuer_that_is_known_to_be_down(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    assert knows(store, issuer.keys[0])
    network.broken = True
    network.pass_by(COOL_DOWN)
    assert not knows(store, IssuerKey())
    network.gate.clear()  # from now on whoever waits waits long
    network.pass_by(COOL_DOWN)
    assert at_once(50, lambda: knows(store, IssuerKey())) == [False] * 50
    assert knows(store, issuer.keys[0])
    network.gate.set()
    background_fetch_ends()
    network.broken = False
    new = issuer.rotate(keep=True)
    network.pass_by(COOL_DOWN)
    knows(store, new)  # asks
    background_fetch_ends()
    assert knows(store, new)


def test_an_issuer_that_never_answered_is_not_asked_by_every_caller(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    network.broken = True
    for _ in range(20):
        with pytest.raises(NotAuthenticatedError, match="cannot be had"):
            store.candidates("ES256", issuer.keys[0].kid)
    assert network.fetches == 1
    network.broken = False
    network.pass_by(COOL_DOWN)
    knows(store, issuer.keys[0])  # asks
    background_fetch_ends()
    assert knows(store, issuer.keys[0])


def test_whoever_waits_for_a_hanging_issuer_waits_a_bounded_time(network: Network, issuer: FakeIssuer) -> None:
    store = DiscoveredKeys(issuer.url, fetch=network, timeout=timedelta(0), monotonic=lambda: network.seconds)
    network.gate.clear()
    with pytest.raises(NotAuthenticatedError, match="does not answer"):
        store.candidates("ES256", issuer.keys[0].kid)
    network.gate.set()
    background_fetch_ends()
    assert knows(store, issuer.keys[0])


@pytest.mark.parametrize(
    "spoiled",
    [
        {"issuer": "https://issuer.example/"},
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"issuer": ["https://issuer.example"]},
    ],
)
def test_j36_discovery_must_name_the_configured_issuer_exactly(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer, spoiled: dict[str, Any]
) -> None:
    network.spoiled = spoiled
    with pytest.raises(NotAuthenticatedError, match="another issuer's"):
        store.candidates("ES256", issuer.keys[0].kid)
    assert len(network.urls) == 1


@pytest.mark.parametrize(
    "jwks_uri",
    [
        "https://evil.example/jwks",
        "http://issuer.example/jwks",
        "https://issuer.example:8443/jwks",
        "https://issuer.example@evil.example/jwks",
        "https://sub.issuer.example/jwks",
        "http://127.0.0.1/jwks",
        "file:///etc/passwd",
        "//issuer.example/jwks",
        "/jwks",
        "",
        None,
        ["https://issuer.example/jwks"],
    ],
)
def test_j36_a_key_set_of_another_origin_is_not_fetched(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer, jwks_uri: object
) -> None:
    network.spoiled = {"jwks_uri": jwks_uri}
    with pytest.raises(NotAuthenticatedError, match="another origin"):
        store.candidates("ES256", issuer.keys[0].kid)
    assert network.urls == [f"{issuer.url}/.well-known/openid-configuration"]


def test_j36_a_pinned_key_set_may_stand_elsewhere(network: Network, issuer: FakeIssuer) -> None:
    pinned = "https://keys.example/all"
    store = DiscoveredKeys(issuer.url, jwks_uri=pinned, fetch=network, monotonic=lambda: network.seconds)
    assert knows(store, issuer.keys[0])
    assert network.urls == [pinned]


def test_an_empty_key_set_does_not_wipe_the_one_before(
    store: DiscoveredKeys, network: Network, issuer: FakeIssuer
) -> None:
    assert knows(store, issuer.keys[0])
    network.spoiled = {"keys": []}
    network.pass_by(LIFETIME + SECOND)
    assert knows(store, issuer.keys[0])


@pytest.mark.parametrize(
    "url",
    [
        "http://issuer.example",
        "http://10.0.0.1",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "https://user:password@issuer.example",
        "https://issuer.example/#x",
        "https://issuer.example/?x=1",
        "https://issuer.example/a b",
        "https://issuer.example/\r\nHost: evil",
        "ftp://issuer.example",
        "issuer.example",
        "",
    ],
)
def test_an_address_that_keys_must_not_come_from_is_refused_at_start(url: str) -> None:
    with pytest.raises(ConfigurationError, match="the issuer's address"):
        DiscoveredKeys(url)


def test_plain_http_is_for_this_machine_only() -> None:
    for url in ("http://127.0.0.1:8080", "http://localhost:8080/x", "http://[::1]:8080", "http://127.8.9.1"):
        assert place_of(url).scheme == "http"
    assert place_of("https://ISSUER.example").origin == place_of("https://issuer.example:443/x").origin
