"""The OpenAPI document as a generated client takes it: requests made from it, and requests that break it, are never answered with a 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from tests.models import small_model
from tests.serving import listening

PATHS = {"/v1/colorize": "post", "/v1/colorize/batch": "post", "/v1/models": "get", "/healthz": "get", "/readyz": "get", "/metrics": "get"}

EXAMPLES = {GenerationMode.POSITIVE: 500, GenerationMode.NEGATIVE: 2500}
"""Requests to each of the two paths that take pictures."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_requests_made_from_the_document_are_answered_as_it_says(mode: GenerationMode) -> None:
    with listening(small_model(working_size=32)) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for path, method in PATHS.items():
            if mode == GenerationMode.NEGATIVE and method == "get":  # there is nothing to break
                continue
            operation = schema[path][method]

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=EXAMPLES[mode] if method == "post" else 50, database=None,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            def ask(case: schemathesis.Case) -> None:
                checks = [not_a_server_error, status_code_conformance, content_type_conformance]
                case.call_and_validate(checks=checks, timeout=60)

            ask()
