"""What the figures were measured on: they mean nothing without it."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psycopg

from controlplane import __version__
from controlplane.dev import loopback
from controlplane.dev.stack import Stack
from controlplane.model.canonical import JsonValue

_PACKAGES: Final = ("fastapi", "uvicorn", "sqlalchemy", "hvac", "urllib3")


def machine() -> dict[str, JsonValue]:
    """Processor, memory, system, and how busy it was: with others at work on it, spans grow and ratios less so."""
    return {
        "cpu": _line("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "system": platform.platform(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def versions(stack: Stack) -> dict[str, JsonValue]:
    """Of the servers, as they say themselves, and of what the control plane is made of."""
    _, health = loopback.ask(stack.openbao.home.known_port("openbao"), "GET", "/v1/sys/health")
    with psycopg.connect(stack.postgres.owner.reveal()) as connection:
        postgresql = connection.info.parameter_status("server_version")
    return {
        "shorthold": __version__,
        "python": platform.python_version(),
        "openbao": health.get("version"),
        "postgresql": postgresql,
        **{name: version(name) for name in _PACKAGES},
    }


def _line(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
