"""A program that we run for somebody: his signals reach it, and its end is ours."""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from controlplane.cli.output import say

_ON: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_NOT_FOUND, _NOT_RUNNABLE, _SIGNALLED = 127, 126, 128
"""As shells have it. Source: POSIX, Shell Command Language 2.8.2."""


def run(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run it to its end, without a shell: the exit status that a shell would have of it.

    From here on this process takes no signal but 9: they go on to the program, and nothing interrupts what comes after.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ON, signal.SIGCHLD})
    try:
        child = os.posix_spawnp(command[0], [*command], environment, setsigmask=before, setsigdef=_IGNORED_BY_PYTHON)
    except FileNotFoundError:
        say(f"{command[0]}: there is no such program")
        return _NOT_FOUND
    except (OSError, ValueError) as error:  # a NUL is in what it would be given
        say(f"{command[0]}: {error.strerror if isinstance(error, OSError) else 'it cannot be given a NUL'}")
        return _NOT_RUNNABLE
    while True:
        told = signal.sigwaitinfo({*_ON, signal.SIGCHLD})
        if told.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else _SIGNALLED - code
        elif told.si_code <= 0:  # a process sent it; what the terminal sends (Ctrl-C) reaches the program by itself
            os.kill(child, told.si_signo)
