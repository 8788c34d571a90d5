"""Recommendations per second of the HTTP server, and failures during reloads under load.

    python tests/benchmarks/bench_http.py [BUNDLE] [--write]

wrk sends POST /recommend (k = 10, random users) over loopback, on the same cores. Without a bundle, a synthetic one of
the size of MovieLens 1M is written. For comparison, in the same run: an application that returns a constant response of
the same size, the upper bound of the underlying server (uvicorn).
"""

import argparse
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
from bench_serve import synthetic
from results import write_section

from cflightning_serve import Scorer

HERE = Path(__file__).parent
BARE = """
import logging, socket, sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] == "http":
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]})
        await send({"type": "http.response.body", "body": BODY})
BODY = b"x" * int(sys.argv[1])
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(f"at http://127.0.0.1:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", access_log=False, log_config=None)
    uvicorn.Server(config).run(sockets=[listener])
"""
SCRAPED = re.compile(r'^cflightning_reloads_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


@contextmanager
def running(*command):
    """Start a server process; return it and its address."""
    process = subprocess.Popen([sys.executable, *map(str, command)], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if found := re.search(r"at (http://\S+)", line):
                break
        else:
            raise SystemExit("the server did not start")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # otherwise the pipe fills
        yield process, found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def processor_seconds(process) -> float:
    """Return the CPU seconds of a process, user plus system."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(wrk: str, process, url: str, options, users: int) -> dict:
    """Measure requests per second, latencies in ms, failures, and the server's CPU time per request in microseconds."""
    script = [wrk, "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-s", HERE / "http_recommend.lua", url]
    before = processor_seconds(process)
    done = subprocess.run([*map(str, script), "--", str(users)], capture_output=True, text=True, check=True)
    spent = processor_seconds(process) - before
    told = json.loads(done.stdout.splitlines()[-1])
    return {
        "rate": told["requests"] / told["seconds"],
        "p50": told["p50"] / 1000,
        "p99": told["p99"] / 1000,
        "failed": told["failed"],
        "processor": spent / told["requests"] * 1e6,
    }


def next_bundle(folder: Path, n: int) -> None:
    """Replace the bundle as the exporter does: the same results with another manifest."""
    scratch, old = folder.with_name("scratch"), folder.with_name("old")
    shutil.copytree(folder, scratch)
    manifest = json.loads((scratch / "manifest.json").read_text("utf-8"))
    sys.modules["serve_tests_bundles"].seal(scratch, manifest | {"written_by": f"bench_http {n}"})
    folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old)


def reload_under_load(options, folder: Path, url: str, measure) -> tuple[dict, int]:
    """Measure during ten reloads; also return how many bundles the server loaded."""

    def replace():
        for n in range(options.reloads):
            time.sleep(options.seconds / (options.reloads + 2))
            next_bundle(folder, n)

    thread = threading.Thread(target=replace)
    thread.start()
    figures = measure()
    thread.join()
    time.sleep(1)
    return figures, int(float(dict(SCRAPED.findall(httpx.get(f"{url}/metrics").text))["loaded"]))


def main() -> None:
    """Measure and print, as JSON and as the section of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement (default: 20)")
    parser.add_argument("--connections", type=int, default=8, help="kept open by wrk (default: 8)")
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--write", action="store_true", help="write the section of RESULTS.md")
    options = parser.parse_args()
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("bench_http: needs wrk; install it with: apt install wrk")
    with tempfile.TemporaryDirectory() as scratch:
        folder = synthetic(Path(scratch) / "bundle")
        if options.bundle is not None:
            shutil.rmtree(folder)
            shutil.copytree(options.bundle, folder)
        users = Scorer.load(folder).manifest.num_users - 1
        figures, asked = {}, {"user": 1, "k": 10}
        with running("-m", "cflightning_serve", "http", folder, "--port", 0, "--poll", 0.2) as (process, url):
            size = len(httpx.post(f"{url}/recommend", json=asked).content)
            load(wrk, process, url, argparse.Namespace(connections=options.connections, seconds=1), users)
            figures["/recommend"] = load(wrk, process, url, options, users)
            with running("-c", BARE, size) as (bare, bare_url):
                figures["constant response"] = load(wrk, bare, bare_url, options, users)
            under, loaded = reload_under_load(options, folder, url, lambda: load(wrk, process, url, options, users))
            figures[f"/recommend, {loaded} reloads"] = under
    print(json.dumps(figures))
    text = render(figures, options, os.getloadavg()[0])
    print(text)
    if options.write:
        write_section("http", text)


def render(figures: dict, options: argparse.Namespace, busy: float) -> str:
    """Format the results as the section of RESULTS.md."""
    bundle = options.bundle.name if options.bundle else "synthetic, the size of MovieLens 1M"
    lines = [
        "## HTTP",
        "",
        f"`make bench-http`, {time.strftime('%Y-%m-%d')}; {os.cpu_count()} cores shared with wrk, {options.seconds} s "
        f"and {options.connections} connections each; Python {platform.python_version()}, load average at the end "
        f"{busy:.1f}; bundle: {bundle}.",
        "",
        "| request | requests/s | p50 ms | p99 ms | failed | CPU time of the server, µs per request |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in figures.items():
        rate, processor = f"{one['rate']:,.0f}", f"{one['processor']:.0f}"
        lines.append(f"| {name} | {rate} | {one['p50']:.1f} | {one['p99']:.1f} | {one['failed']} | {processor} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
