"""Valid and invalid requests generated from the OpenAPI document: responses are as described, none is 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings

EXAMPLES = 8
"""Valid and as many invalid requests for each of some twenty operations; tests/benchmarks/fuzz_http.py has 10,000."""


@pytest.fixture(params=["tables", "string_tables", "mixed_tables"])
def described(request, start, bundles, fold_in_graphs, tmp_path):
    """The OpenAPI document of a server whose bundle has all graphs."""
    tables = bundles.make_rich(request.getfixturevalue(request.param))
    folder = bundles.write_bundle(tmp_path / "bundle", tables)
    fold_in_graphs.add(folder, tables, bundles)
    with start(ServerState(Settings(folder))) as client:
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


@pytest.mark.slow
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_response_is_as_described(described, mode):
    operations = [result.ok() for result in described.get_all_operations()]
    routes = {"/recommend", "/score", "/similar", "/fold-in", "/explain", "/metrics", "/about", "/items", "/map"}
    assert routes < {operation.path for operation in operations}
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # there is no invalid request
        if "{version}" in operation.path:
            continue  # the same handlers as without

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            response = case.call()
            if response.status_code != 413:  # for long lists, whose limit is not in the description
                # The inputs of a graph are in its metadata, not in the OpenAPI document.
                case.validate_response(
                    response, excluded_checks=[positive_data_acceptance] if case.path.endswith("/infer") else []
                )

        check()
