"""The OpenAPI document says the truth: generated requests never meet a fault, nor an answer that isn't in it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.people import add_agent

REQUESTS = 12
"""Generated for each operation and role."""

CHECKS = (
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
)


@pytest.mark.parametrize("role", ["operator", "manager", "member", "gateway"])
def test_generated_requests_meet_only_what_is_documented(api, services, role: str) -> None:
    token = {"operator": api.operator_token, "gateway": api.gateway_token}.get(role)
    token = token or add_agent(services, "dinum", role)[1]
    document = schemathesis.openapi.from_url(f"{api.url}/docs/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @seed(1)
        @settings(
            max_examples=REQUESTS, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def ask(case) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=CHECKS)

        ask()
