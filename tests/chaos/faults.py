"""How each kind of blow is dealt to a site, and how its effect ends."""

import resource
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import psutil

from controlplane.model.errors import ControlPlaneError
from controlplane.testing.fault_proxy import When
from tests.chaos.schedule import Blow
from tests.chaos.site import Site

Later = Callable[[int, Callable[[], object]], None]
"""Lets something happen so many milliseconds later."""


def deal(site: Site, blow: Blow, later: Later) -> None:
    """Deal it; whatever lasts is ended by `later`, or when the site is calmed."""
    KINDS[blow.kind](site, blow, later)


def _cut(when: When) -> "Deal":
    return lambda site, blow, later: site.proxy.cut(blow.detail, when)


def _hold(when: When) -> "Deal":
    def hold(site: Site, blow: Blow, later: Later) -> None:
        fault = site.proxy.hold(blow.detail, when)
        # The clock of a request that comes late runs from when it comes.
        threading.Thread(target=_release, args=(fault.wait, fault.release, blow.lasts), daemon=True).start()

    return hold


def _release(wait: Callable[[], None], release: Callable[[], None], lasts: int) -> None:
    with suppress(TimeoutError):
        wait()
        threading.Event().wait(lasts / 1000)
    release()


def _vault_says(site: Site, blow: Blow, later: Later) -> None:
    site.proxy.answer_only(int(blow.detail))
    later(blow.lasts, lambda: site.proxy.answer_only(None))


def _cut_off(site: Site, blow: Blow, later: Later) -> None:
    upstream = site.proxy.upstream
    site.proxy.upstream = upstream._replace(netloc="127.0.0.1:1")  # where nobody listens

    def back() -> None:
        site.proxy.upstream = upstream

    later(blow.lasts, back)


def _kill_openbao(site: Site, blow: Blow, later: Later) -> None:
    site.kill_openbao()
    later(blow.lasts, site.start_openbao)


def _seal_openbao(site: Site, blow: Blow, later: Later) -> None:
    with suppress(ControlPlaneError):
        site.seer.vault.write("sys/seal", {})
    later(blow.lasts, site.start_openbao)


def _stop_openbao(site: Site, blow: Blow, later: Later) -> None:
    pid = site.stack.openbao.process.pid
    if pid is None:
        return
    process = psutil.Process(pid)
    with suppress(psutil.NoSuchProcess):
        process.suspend()

    def go_on() -> None:
        with suppress(psutil.NoSuchProcess):
            process.resume()

    later(blow.lasts, go_on)


def _kill_postgresql(site: Site, blow: Blow, later: Later) -> None:
    site.kill_postgresql()
    later(blow.lasts, site.start_postgresql)


def _openbao_loses(site: Site, blow: Blow, later: Later) -> None:
    site.reachable.openbao_postgresql = False
    site.line.sever()
    later(blow.lasts, lambda: setattr(site.reachable, "openbao_postgresql", True))


def _we_lose(site: Site, blow: Blow, later: Later) -> None:
    site.reachable.us_postgresql = False
    site.road.sever()
    later(blow.lasts, lambda: setattr(site.reachable, "us_postgresql", True))


def _slow(site: Site, blow: Blow, later: Later) -> None:
    site.line.lag = site.road.lag = 0.05
    later(blow.lasts, lambda: [setattr(way, "lag", 0.0) for way in (site.line, site.road)])


def _disk_full(site: Site, blow: Blow, later: Later) -> None:
    """No file of the control plane grows beyond its first byte: its store, if it is a file, and its log."""
    pid = site.planes[0].pid
    if pid is not None:
        _limit(pid, 1)
        later(blow.lasts, lambda: _limit(pid, resource.RLIM_INFINITY))


def _limit(pid: int, size: int) -> None:
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _stop_us(site: Site, blow: Blow, later: Later) -> None:
    plane = site.planes[-1]
    plane.told(signal.SIGSTOP)
    later(blow.lasts, lambda: plane.told(signal.SIGCONT))


def _kill_us(site: Site, blow: Blow, later: Later) -> None:
    del later
    site.planes[blow.at % len(site.planes)].kill()


Deal = Callable[[Site, Blow, Later], object]
KINDS: Final[Mapping[str, Deal]] = {
    "cut-before": _cut(When.BEFORE),
    "cut-after": _cut(When.AFTER),
    "forge": lambda site, blow, later: site.proxy.forge(blow.detail, blow.lasts),
    "twice": lambda site, blow, later: site.proxy.forge(blow.detail, blow.lasts, twice=True),
    "half": lambda site, blow, later: site.proxy.halve(blow.detail),
    "hold-before": _hold(When.BEFORE),
    "hold-after": _hold(When.AFTER),
    "vault-says": _vault_says,
    "vault-cut-off": _cut_off,
    "kill-openbao": _kill_openbao,
    "seal-openbao": _seal_openbao,
    "stop-openbao": _stop_openbao,
    "kill-postgresql": _kill_postgresql,
    "openbao-loses-postgresql": _openbao_loses,
    "we-lose-postgresql": _we_lose,
    "clip-openbao": lambda site, blow, later: site.line.clip(),
    "clip-us": lambda site, blow, later: site.road.clip(),
    "postgresql-is-slow": _slow,
    "disk-full": _disk_full,
    "stop-us": _stop_us,
    "kill-us": _kill_us,
}
