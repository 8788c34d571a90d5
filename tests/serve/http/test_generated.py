"""Requests made up from the OpenAPI description, good and bad: each is answered as described, none with 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings

EXAMPLES = 8
"""Good ones and as many bad ones, for each of some twenty operations; tests/benchmarks/fuzz_http.py makes up 10,000."""


@pytest.fixture(params=["tables", "string_tables", "mixed_tables"])
def described(request, start, bundles, fold_in_graphs, tmp_path):
    """What a server says of itself, read over HTTP; its bundle can answer everything."""
    tables = bundles.make_rich(request.getfixturevalue(request.param))
    folder = bundles.write_bundle(tmp_path / "bundle", tables)
    fold_in_graphs.add(folder, tables, bundles)
    with start(ServerState(Settings(folder))) as client:
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_as_described(described, mode):
    operations = [result.ok() for result in described.get_all_operations()]
    questions = {"/recommend", "/score", "/similar", "/fold-in", "/explain", "/metrics", "/about", "/items", "/map"}
    assert questions < {one.path for one in operations}
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing of it can be wrong
        if "{version}" in operation.path:
            continue  # the same functions as without

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
            if response.status_code != 413:  # long lists are, and schemathesis does not know of it
                # What a graph takes, metadata says: the description of the protocol does not.
                case.validate_response(
                    response, excluded_checks=[positive_data_acceptance] if case.path.endswith("/infer") else []
                )

        check()
