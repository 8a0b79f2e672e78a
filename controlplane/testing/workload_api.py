"""The SPIFFE Workload API at a unix socket, as an agent of a trust domain speaks it to one workload.

A program of its own, `python -m controlplane.testing.workload_api SOCKET FILE`: gRPC has threads that outlive a test.
Source: SPIFFE Workload API 4 (the security header), 6 (JWT-SVID profile).
"""

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_HEADER = ("workload.spiffe.io", "true")


def serve(socket: Path, tokens: Path, audience: str = "shorthold") -> None:
    """Answer for ever with the JWT-SVID that stands in `tokens` now; where none does, the workload is not known."""
    grpc: Any = importlib.import_module("grpc")
    messages: Any = importlib.import_module("spiffe._proto.workload_pb2")

    def fetch(request: Any, context: Any) -> Any:  # noqa: ANN401 # gRPC has no types
        if _HEADER not in {(name, value) for name, value in context.invocation_metadata()}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the security header is missing")
        if [*request.audience] != [audience]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is for another audience")
        if not (token := tokens.read_text(encoding="utf-8")):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        return messages.JWTSVIDResponse(svids=[messages.JWTSVID(svid=token)])

    handler = grpc.unary_unary_rpc_method_handler(
        fetch,
        request_deserializer=messages.JWTSVIDRequest.FromString,
        response_serializer=messages.JWTSVIDResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {"FetchJWTSVID": handler})]
    )
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))
