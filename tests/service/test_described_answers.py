"""Valid and invalid requests generated from /openapi.json get answers that it describes, none of 5xx."""

from itertools import product

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from cllm4rec import EASE
from cllm4rec.service.app import Served, application

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
PATHS = ["/explain", "/health", "/history", "/items", "/map", "/recommend", "/similar", "/users"]


@pytest.mark.slow
def test_generated_requests_get_described_answers(ease: EASE) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", application(Served(ease, "run")))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert sorted(operation.path for operation in operations) == PATHS
    statuses: dict[str, set[int]] = {path: set() for path in PATHS}
    for operation, mode in product(operations, GenerationMode):
        if mode.is_negative and operation.path == "/health":
            continue  # it takes nothing that could be invalid

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def is_described(case: Case) -> None:
            answer = case.call()
            statuses[case.operation.path].add(answer.status_code)
            case.validate_response(answer, checks=CHECKS)

        is_described()
    assert statuses["/health"] == {200}
    assert {200, 422} <= statuses["/items"]
    assert all({400, 422} <= statuses[path] for path in ("/recommend", "/explain", "/similar")), statuses
