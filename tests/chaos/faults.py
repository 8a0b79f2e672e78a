"""How each kind of blow is dealt to a site, and what ends it."""

import resource
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import psutil

from controlplane.model.errors import ControlPlaneError
from controlplane.testing.fault_proxy import Fault, When
from tests.chaos.schedule import Blow
from tests.chaos.site import Site

_COMMIT: Final = b"commit\x00"  # how OpenBao's plugin ends the transaction that makes or ends a login
_SOON: Final = 0.6
End = Callable[[], object]
Deal = Callable[[Site, Blow], End | None]


def deal(site: Site, blow: Blow) -> End | None:
    """Deal it. What ends it when it has lasted as long as it should; None where it ends by itself."""
    return KINDS[blow.kind](site, blow)


def _cut_before(site: Site, blow: Blow) -> None:
    site.proxy.cut(blow.detail, When.BEFORE)


def _cut_after(site: Site, blow: Blow) -> None:
    site.proxy.cut(blow.detail, When.AFTER)


def _hold_before(site: Site, blow: Blow) -> None:
    _let_go(site.proxy.hold(blow.detail, When.BEFORE), blow.lasts)


def _hold_after(site: Site, blow: Blow) -> None:
    _let_go(site.proxy.hold(blow.detail, When.AFTER), blow.lasts)


def _let_go(fault: Fault, lasts: int) -> None:
    """Release what is held so many milliseconds after it has come."""

    def release() -> None:
        with suppress(TimeoutError):
            fault.wait()
            threading.Event().wait(lasts / 1000)
        fault.release()

    threading.Thread(target=release, daemon=True).start()


def _forge(site: Site, blow: Blow) -> None:
    site.proxy.forge(blow.detail, blow.status)


def _twice(site: Site, blow: Blow) -> None:
    site.proxy.forge(blow.detail, blow.status, twice=True)


def _half(site: Site, blow: Blow) -> None:
    site.proxy.halve(blow.detail)


def _vault_says(site: Site, blow: Blow) -> End:
    site.proxy.answer_only(blow.status)
    return lambda: site.proxy.answer_only(None)


def _cut_off(site: Site, _: Blow) -> End:
    upstream = site.proxy.upstream
    site.proxy.upstream = upstream._replace(netloc="127.0.0.1:1")  # where nobody listens
    return lambda: setattr(site.proxy, "upstream", upstream)


def _kill_openbao(site: Site, _: Blow) -> End:
    site.kill_openbao()
    return site.start_openbao


def _kill_openbao_amid_commit(site: Site, _: Blow) -> End:
    """PostgreSQL has made or ended a login, and OpenBao dies before it knows (docs/vault-facts.md, fact 5)."""
    held = site.line.hold(_COMMIT)
    try:
        with suppress(TimeoutError):
            held.wait(_SOON)
        site.kill_openbao()
    finally:
        held.release()
    return site.start_openbao


def _seal_openbao(site: Site, _: Blow) -> End:
    with suppress(ControlPlaneError):
        site.seer.vault.write("sys/seal", {})
    return site.start_openbao


def _stop_openbao(site: Site, _: Blow) -> End | None:
    pid = site.stack.openbao.process.pid
    if pid is None:
        return None
    process = psutil.Process(pid)
    with suppress(psutil.NoSuchProcess):
        process.suspend()

    def go_on() -> None:
        with suppress(psutil.NoSuchProcess):
            process.resume()

    return go_on


def _kill_postgresql(site: Site, _: Blow) -> End:
    site.kill_postgresql()
    return site.start_postgresql


def _openbao_loses(site: Site, _: Blow) -> End:
    site.reachable.openbao_postgresql = False
    site.line.sever()
    return lambda: setattr(site.reachable, "openbao_postgresql", True)


def _we_lose(site: Site, _: Blow) -> End:
    site.reachable.us_postgresql = False
    site.road.sever()
    return lambda: setattr(site.reachable, "us_postgresql", True)


def _clip_openbao(site: Site, _: Blow) -> None:
    site.line.clip()


def _clip_us(site: Site, _: Blow) -> None:
    site.road.clip()


def _slow(site: Site, _: Blow) -> End:
    site.line.lag = site.road.lag = 0.05
    return lambda: [setattr(way, "lag", 0.0) for way in (site.line, site.road)]


def _disk_full(site: Site, _: Blow) -> End | None:
    """No file of the control plane grows beyond its first byte: its store, if it is a file, and its log."""
    pid = site.planes[0].pid
    if pid is None:
        return None
    _limit(pid, 1)
    return lambda: _limit(pid, resource.RLIM_INFINITY)


def _limit(pid: int, size: int) -> None:
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _stop_us(site: Site, _: Blow) -> End:
    plane = site.planes[-1]
    plane.told(signal.SIGSTOP)
    return lambda: plane.told(signal.SIGCONT)


def _kill_us(site: Site, blow: Blow) -> None:
    site.planes[blow.at % len(site.planes)].kill()


KINDS: Final[Mapping[str, Deal]] = {
    "cut-before": _cut_before,
    "cut-after": _cut_after,
    "hold-before": _hold_before,
    "hold-after": _hold_after,
    "forge": _forge,
    "twice": _twice,
    "half": _half,
    "vault-says": _vault_says,
    "vault-cut-off": _cut_off,
    "kill-openbao": _kill_openbao,
    "seal-openbao": _seal_openbao,
    "stop-openbao": _stop_openbao,
    "kill-postgresql": _kill_postgresql,
    "openbao-loses-postgresql": _openbao_loses,
    "we-lose-postgresql": _we_lose,
    "clip-openbao": _clip_openbao,
    "clip-us": _clip_us,
    "postgresql-is-slow": _slow,
    "disk-full": _disk_full,
    "stop-us": _stop_us,
    "kill-us": _kill_us,
    "kill-openbao-amid-commit": _kill_openbao_amid_commit,
}
