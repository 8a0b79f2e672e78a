"""Processes that stand still."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

import psutil

from controlplane.dev.process import until

PATIENCE: Final = timedelta(seconds=60)


@contextmanager
def halted(*pids: int) -> Generator[None]:
    """Stop them with all their threads while the block lasts.

    To have sent SIGSTOP is not enough: a thread that is running then may answer yet.
    """
    processes = [psutil.Process(pid) for pid in pids]
    try:
        for process in processes:
            process.suspend()
        if not until(lambda: all(_stands(process) for process in processes), PATIENCE):
            raise TimeoutError(f"SIGSTOP did not stop {pids} within {PATIENCE}")
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


def _stands(process: psutil.Process) -> bool:
    try:
        return all(psutil.Process(thread.id).status() == psutil.STATUS_STOPPED for thread in process.threads())
    except psutil.NoSuchProcess:  # it has ended, or one of its threads
        return not process.is_running()
