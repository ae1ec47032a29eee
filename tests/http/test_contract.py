"""The OpenAPI document says the truth: generated requests never meet a fault, nor an answer that isn't in it."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    negative_data_rejection,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from tests.people import add_agent

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)
REQUESTS = {GenerationMode.POSITIVE: 8, GenerationMode.NEGATIVE: 4}
"""Generated for each operation: such as the document allows, and such as it doesn't."""


PER_EVENT = "/v1/events"
"""Events that are wrong are refused one by one, in an answer that is none of an error."""


@pytest.mark.parametrize("mode", REQUESTS)
def test_generated_requests_of_every_role_meet_only_what_is_documented(api, services, mode: GenerationMode) -> None:
    agents = [add_agent(services, "dinum", role)[1] for role in ("manager", "member")]
    document = schemathesis.openapi.from_url(f"{api.url}/docs/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:
        if mode is GenerationMode.POSITIVE or operation.body or operation.query:  # else nothing to be wrong in
            ask_generated(operation, mode, [api.gateway_token, *agents, api.operator_token])


def ask_generated(operation: Any, mode: GenerationMode, tokens: list[str]) -> None:
    """Ask the same on behalf of each token."""
    refuses = mode is GenerationMode.NEGATIVE and operation.path != PER_EVENT
    checks = (*CHECKS, negative_data_rejection) if refuses else CHECKS

    @seed(1)
    @settings(
        max_examples=REQUESTS[mode], database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        for token in tokens:
            case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, checks=checks)

    ask()
