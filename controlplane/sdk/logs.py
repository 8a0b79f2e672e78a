"""A filter for `logging` that knows what was issued."""

import contextlib
import logging

from typing_extensions import override

from controlplane.sdk.access import Access
from controlplane.sdk.refusals import OverError


class LogRedactor(logging.Filter):
    """`handler.addFilter(LogRedactor(access))`: no line that it writes has a secret of `access`, nor has a traceback.

    Add it to handlers: what a filter of a logger changes is not changed for the loggers below it. Once the access is
    over its secrets are forgotten, and lines pass as they are.
    """

    def __init__(self, access: Access) -> None:
        super().__init__()
        self._access = access

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, without secrets from here on."""
        printed = logging.Formatter().formatException(record.exc_info) if record.exc_info else record.exc_text
        said = {**vars(record), "msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": printed}
        with contextlib.suppress(OverError):
            cleaned = self._access.redacted(said)
            if cleaned != said:
                vars(record).update(cleaned)
        return True
