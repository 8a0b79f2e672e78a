"""`/openapi.json` says of every route, present and to come, what a caller has to know of it."""

import json
from typing import Any, cast

import pytest

from controlplane.http.app import create_app
from controlplane.http.description import answers
from controlplane.model.errors import DeniedError, OverBudgetError, VaultUnavailableError
from controlplane.testing.entitlements import compiled_entitlement
from controlplane.testing.plane import FakePlane
from controlplane.wiring.plane import ControlPlane

FORMATS = {"/metrics": "text/plain", "/v1/incidents/{id}/events": "text/event-stream"}
OPEN = {"/v1/signals", "/healthz", "/readyz", "/.well-known/jwks.json", "/metrics"}


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    app = create_app(cast("ControlPlane", FakePlane(compiled_entitlement())), worker=False)
    return app.openapi()


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, told) for path, item in described["paths"].items() for method, told in item.items()]


def test_every_route_but_the_open_ones_says_that_it_needs_a_token(described: dict[str, Any]) -> None:
    assert described["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for path, _, told in operations(described):
        assert told.get("security") == (None if path in OPEN else [{"bearer": []}]), path
        assert ("401" in told["responses"]) is (path not in OPEN)


def test_every_operation_has_a_name_that_reads_well_and_is_its_own(described: dict[str, Any]) -> None:
    names = [told["operationId"] for _, _, told in operations(described)]
    assert len(set(names)) == len(names)
    assert {"request_grant", "list_grants", "show_grant", "finish_grant", "list_entitlements"} <= set(names)
    assert all(name.replace("_", "").isalpha() for name in names)


def test_every_error_is_described_as_a_problem_with_its_codes(described: dict[str, Any]) -> None:
    for path, method, told in operations(described):
        for status, response in told["responses"].items():
            if int(status) >= 400 and not (path == "/readyz" and status == "503"):
                assert list(response["content"]) == ["application/problem+json"], (path, method, status)
                assert response["description"].startswith("`"), (path, method, status)


def test_every_success_and_every_body_has_a_closed_shape(described: dict[str, Any]) -> None:
    """What is answered beyond it, and what is sent beyond it (A03, A14), is a fault and is refused."""
    for path, _, told in operations(described):
        for status, response in told["responses"].items():
            if path == "/v1/signals" and status == "202":  # RFC 8935 2.2: nothing but the status
                assert "content" not in response
                continue
            if int(status) < 300:
                ((kind, content),) = response["content"].items()
                if path in FORMATS:  # a format of its own, and nothing is sent to it
                    assert (kind, content["schema"]) == (FORMATS[path], {"type": "string"})
                    continue
                assert kind == "application/json", (path, status)
                assert content["schema"]["$ref"].startswith("#/components/schemas/"), (path, status)
    for name, schema in described["components"]["schemas"].items():
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False, name


def test_every_body_comes_with_an_example(described: dict[str, Any]) -> None:
    for path, _, told in operations(described):
        if "requestBody" in told and path != "/v1/signals":  # a token, and no example of one is good
            name = told["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            assert described["components"]["schemas"][name]["examples"], path


def test_nothing_of_the_framework_s_own_errors_is_left(described: dict[str, Any]) -> None:
    assert "ValidationError" not in json.dumps(described)


def test_errors_with_one_status_are_told_together() -> None:
    told = answers({}, DeniedError, OverBudgetError, VaultUnavailableError)
    assert list(told) == ["403", "429", "503"]
    assert told["429"]["description"].startswith("`over-budget`: Nothing but a budget")
    assert "Retry-After" in told["429"]["headers"]
