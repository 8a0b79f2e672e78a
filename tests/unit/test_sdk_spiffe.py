"""An agent of a mesh: the Workload API by the SPIFFE library itself, and our issuer takes what it gives (C3)."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from controlplane.dev.process import until
from controlplane.issuers import kinds
from controlplane.issuers.trust.trusted import TrustedIssuers
from controlplane.model.secret import Secret
from controlplane.testing.issuer import FakeIssuer
from controlplane.world import SystemClock

DOMAIN = "spiffe://acme.example"
WORKLOAD = f"{DOMAIN}/agents/orders"
AGENT = """
import json, os, pathlib, sys
from controlplane.model.errors import ConfigurationError
from controlplane.sdk.surroundings import own

identity, file = own(os.environ), pathlib.Path(sys.argv[1])
told = [identity().reveal()]
for text in sys.argv[2:]:
    file.write_text(text)
    try:
        told.append(identity().reveal())
    except ConfigurationError as error:
        told.append(error.detail)
print(json.dumps(told))
"""


def test_c3_the_workload_api_is_asked_every_time_and_what_it_gives_proves_the_workload(tmp_path: Path) -> None:
    clock = SystemClock()
    mesh = FakeIssuer(DOMAIN, clock=clock, name="mesh")
    mesh.keys[0].jwk["use"] = "jwt-svid"  # SPIFFE Trust Domain and Bundle 4.2.2
    first, second = (mesh.mint(WORKLOAD, without=["iss"], jti=name).reveal() for name in ("one", "two"))
    foreign = mesh.mint(WORKLOAD, aud="somebody-else").reveal()
    place = TemporaryDirectory()  # a socket's path has 107 bytes at most. Source: unix(7)
    at, file = Path(place.name) / "api", tmp_path / "token"
    file.write_text(first, encoding="utf-8")
    api = subprocess.Popen([sys.executable, "-m", "controlplane.testing.workload_api", str(at), str(file)])
    try:
        assert until(at.exists, timedelta(seconds=60))
        agent = subprocess.run(
            [sys.executable, "-c", AGENT, str(file), second, foreign, ""],
            env={"PATH": os.defpath, "HOME": str(tmp_path), "SPIFFE_ENDPOINT_SOCKET": f"unix:{at}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    finally:
        api.terminate()
        api.wait(60)
        place.cleanup()
    assert agent.returncode == 0, agent.stderr
    *tokens, for_others, unknown = json.loads(agent.stdout)
    assert tokens == [first, second]
    # Neither what was given for another audience, nor whatever the library says of it.
    assert for_others == unknown == "the SPIFFE Workload API gave no token: FetchJwtSvidError"
    issuers = TrustedIssuers([mesh.of_kind(kinds()["spiffe"], jwks_file=tmp_path / "bundle.json")], clock)
    who = issuers.verify(Secret(tokens[1]))
    assert (who.issuer, who.subject) == ("mesh", WORKLOAD)
