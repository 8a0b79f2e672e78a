"""Log lines: JSON on stderr, one event a line, with whatever looks secret blotted out."""

import logging
import re
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

_SECRET = re.compile(
    r"(?:hv[sbr]|s|b|r)\.[A-Za-z0-9_-]{20,}"  # Vault and OpenBao tokens
    r"|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # compact JWS
    r"|whsec_[A-Za-z0-9+/=]{20,}"  # secrets of webhooks
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END|$)"
)


def configure() -> None:
    """Set up logging for the whole process. Repeating it changes nothing."""
    steps: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _blot_out,
    ]
    structlog.configure(
        processors=[*steps, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lossy(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=steps,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


class _Lossy:
    """Where log lines go, or get lost: a full disk under the log keeps no worker from its work."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()


def _blot_out(logger: object, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # Nothing secret should get here; a library's exception text is what this is for.
    del logger, name
    return {key: _SECRET.sub("…", value) if isinstance(value, str) else value for key, value in event.items()}
