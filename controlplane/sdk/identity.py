"""Who an agent is: sources of the OIDC token that its platform gives it. Each is asked anew at every call."""

import importlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from controlplane.model.errors import ConfigurationError
from controlplane.model.secret import Secret

Identity = Callable[[], Secret]
"""Gives the token of the moment. Raises: ConfigurationError: there is none; without showing anything of it."""

AUDIENCE: Final = "shorthold"
"""`aud` of the tokens that are asked for here; the settings of the control plane's issuer name it."""
PROJECTED: Final = "/var/run/secrets/shorthold/token"
"""Where `docs/agents.md` mounts a Kubernetes projected token."""
_WITHIN: Final = 30.0


def from_file(path: str | Path) -> Identity:
    """A file, read anew every time: whoever rotates it is followed."""

    def token() -> Secret:
        try:
            return _some(Path(path).read_text(encoding="latin-1"), f"the token file {path}")
        except OSError as error:
            raise ConfigurationError(f"the token file {path} cannot be read: {error.strerror}") from None

    return token


def from_text(token: Secret | str, where: str = "the token") -> Identity:
    """A token that is at hand, such as that of an environment variable."""
    kept = token if isinstance(token, Secret) else Secret(token)
    return lambda: _some(kept.reveal(), where)


def from_command(*command: str) -> Identity:
    """What a program prints; it is run without a shell, and what it says on stderr is shown to nobody."""

    def token() -> Secret:
        try:
            run = subprocess.run(  # noqa: S603 # the agent's own command, as a list
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_WITHIN, check=False
            )
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it does not end"
            raise ConfigurationError(f"the token command {command[0]} cannot be run: {why}") from None
        if run.returncode:
            raise ConfigurationError(f"the token command {command[0]} failed with exit status {run.returncode}")
        return _some(run.stdout.decode("latin-1"), f"the token command {command[0]}")

    return token


def from_kubernetes(path: str | Path = PROJECTED) -> Identity:
    """A pod's projected token, which the kubelet rotates. Source: Kubernetes docs, "Projected Volumes"."""
    return from_file(path)


def from_github(url: str, bearer: Secret, *, audience: str = AUDIENCE) -> Identity:
    """GitHub Actions' own token, for steps with `permissions: id-token: write`.

    `url` and `bearer` are ACTIONS_ID_TOKEN_REQUEST_URL and _TOKEN. Source: GitHub docs, "OpenID Connect reference".
    """

    def token() -> Secret:
        import urllib3  # noqa: PLC0415 # only where it is used

        place = f"{url}{'&' if '?' in url else '?'}{urlencode({'audience': audience})}"
        headers = {"Authorization": f"Bearer {bearer.reveal()}", "Accept": "application/json"}
        try:
            with urllib3.PoolManager(retries=False, timeout=_WITHIN) as http:
                answer = http.request("GET", place, headers=headers, redirect=False)
            value: object = json.loads(answer.data).get("value")
        except (urllib3.exceptions.HTTPError, ValueError, AttributeError):
            raise ConfigurationError("GitHub's token endpoint did not answer with a token") from None
        return _some(value if isinstance(value, str) else "", "GitHub's token endpoint")

    return token


def from_spiffe(*, audience: str = AUDIENCE) -> Identity:
    """A JWT-SVID of the SPIFFE Workload API at SPIFFE_ENDPOINT_SOCKET; needs the extra `shorthold[spiffe]`."""

    def token() -> Secret:
        try:
            spiffe: Any = importlib.import_module("spiffe")  # an extra without type information here
        except ImportError:
            raise ConfigurationError("for SPIFFE install the extra: shorthold[spiffe]") from None
        try:
            with spiffe.WorkloadApiClient() as workload:
                return _some(str(workload.fetch_jwt_svid({audience}, timeout=_WITHIN).token), "the SPIFFE Workload API")
        except Exception as error:  # noqa: BLE001 # its own kinds, and those of gRPC
            raise ConfigurationError(f"the SPIFFE Workload API gave no token: {type(error).__name__}") from None

    return token


def _some(text: str, where: str) -> Secret:
    if not (token := text.strip()):
        raise ConfigurationError(f"{where} is empty")
    return Secret(token)
