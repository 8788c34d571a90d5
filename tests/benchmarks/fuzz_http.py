"""Ten thousand requests generated from the server's OpenAPI description: no response may be 5xx.

    python tests/benchmarks/fuzz_http.py [BUNDLE] [--requests 10000]

Valid and invalid requests by schemathesis; without a bundle, half of them with integer ids and half with string ids.
Prints the number of responses by status and the memory of the server; exits with 1 after a failure.
"""

import argparse
import os
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx
import schemathesis
from bench_http import running
from bench_serve import synthetic
from hypothesis import HealthCheck, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

STATUS = re.compile(r'^cflightning_requests_total\{route="[^"]*",status="(\d+)"\} (\S+)$', re.MULTILINE)


def statuses(url: str) -> Counter:
    """Return status -> number of responses."""
    found = Counter()
    for status, count in STATUS.findall(httpx.get(f"{url}/metrics").text):
        found[status] += int(float(count))
    return found


def resident(process) -> float:
    """Return the memory of a process in MB."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def fuzz(url: str, requests: int, number: int) -> list[str]:
    """Send requests for every operation; return the responses that differ from the description."""
    operations = [result.ok() for result in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()]
    questions = [(one, mode) for one in operations if one.body for mode in GenerationMode if mode.name != "ALL"]
    others = [(one, GenerationMode.POSITIVE) for one in operations if not one.body]
    failures = []
    for operation, mode in questions + others:

        @seed(number)
        @settings(
            max_examples=requests // (len(questions) + 1) if operation.body else max(1, requests // 500),
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            response = case.call()
            if "unsupported" in response.text or response.status_code == 413:
                return  # valid, but not supported by this bundle, or too long
            # The inputs of a graph are described by its metadata, not by the OpenAPI description.
            case.validate_response(
                response, excluded_checks=[positive_data_acceptance] if case.path.endswith("/infer") else []
            )

        try:
            check()
        except BaseExceptionGroup as error:
            failures.append(f"{operation.label}, {mode.value}: {error}")
    return failures


def main() -> int:
    """Fuzz the servers in sequence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundles = [options.bundle] if options.bundle else [synthetic(Path(scratch) / "int")]
        if not options.bundle:
            helper = sys.modules["serve_tests_bundles"]
            tables = helper.make_tables(500, 300, 16, strings=True, titles=True)
            bundles.append(helper.write_bundle(Path(scratch) / "string", tables))
        bad = False
        for bundle in bundles:
            with running("-m", "cflightning_serve", "http", bundle, "--port", 0) as (process, url):
                before = resident(process)
                # A margin, as routes with few different requests get fewer.
                failures = fuzz(url, round(1.06 * options.requests / len(bundles)), options.seed)
                answered = statuses(url)
                print(f"{bundle.name}: {sum(answered.values()):,} requests, {dict(sorted(answered.items()))}")
                print(f"memory of the server: {before:.0f} MB, then {resident(process):.0f} MB")
                for failure in failures:
                    print(failure)
                bad |= bool(failures) or any(status >= "500" for status in answered) or process.poll() is not None
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
