"""Minutes of regular and malicious load on the HTTP server, with bars for latency, memory and errors.

    python tests/benchmarks/soak_http.py [--minutes 10] [--kinds dear,slow]

Regular requests; expensive ones; large responses that no client reads, and payloads that do not arrive; clients that
disconnect; bytes that are not HTTP; wrong hosts, keys and encodings; new bundles by rename, damage in place, SIGHUP.
Meanwhile, another process sends twenty health checks per second. Fails if a response is 5xx other than 503, health
takes more than 200 ms, memory grows, the log has a traceback, or the server does not stop. Everything runs on loopback.
"""

import argparse
import gzip
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
KEY = "soak-" + "0" * 32
SLOWEST = 0.2
"""Bar for the latency of health checks, seconds."""
GROWTH, SLACK = 1.1, 32.0
"""Bar for memory at the end: this multiple of that at a fifth of the time, plus this number of MB."""
PROBES = 0.05
"""Interval of health checks, seconds."""


def load_helper(name):
    """Import a module of the serving tests, which are not a package."""
    spec = importlib.util.spec_from_file_location(f"serve_tests_{name}", HERE.parent / "serve" / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_bundle(folder: Path) -> Path:
    """Write a bundle with all graphs: 400 users, 3,000 items, 64 factors."""
    bundles, fold_in_graphs = load_helper("bundles"), load_helper("fold_in_graphs")
    tables = bundles.make_rich(bundles.make_tables(400, 3000, 64, titles=True))
    bundles.write_bundle(folder, tables)
    return fold_in_graphs.add(folder, tables, bundles)


class Server:
    """A server process, its address and its log."""

    def __init__(self, bundle: Path, keys: Path) -> None:
        words = [
            "--port",
            "0",
            "--poll",
            "0.5",
            "--api-key-file",
            str(keys),
            "--max-seconds",
            "5",
            "--max-connections",
            "300",
        ]
        command = [sys.executable, "-m", "cflightning_serve", "http", str(bundle), *words]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        for line in self.process.stderr:
            if found := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                break
        else:
            raise SystemExit("the server did not start")
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def resident(self) -> float:
        """Return the memory of the server in MB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def request(
    method: str, path: str, body: bytes | dict | None = None, *headers: str, key: str = KEY, host="localhost"
) -> bytes:
    """Return the bytes of a request."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body or b""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"X-API-Key: {key}", *headers]
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def large_answer() -> dict:
    """Return a request for about 9 MB of JSON, or 2 MB of binary data."""
    users = {"name": "user", "shape": [150], "datatype": "INT64", "data": [10] * 150}
    return {"inputs": [users], "outputs": [{"name": "score"}]}


class Load:
    """The clients: each kind is a method that sends one request and returns the status of the response."""

    def __init__(self, server: Server, bundle: Path, spare: Path) -> None:
        self.server, self.bundle, self.spare = server, bundle, spare
        self.answers: Counter[tuple[str, str]] = Counter()
        self.over = threading.Event()
        self.writing = threading.Lock()
        self.random = random.Random(0)

    def connect(self, timeout: float = 15, window: int = 0) -> socket.socket:
        one = socket.socket()
        if window:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        one.settimeout(timeout)
        one.connect(("127.0.0.1", self.server.port))
        return one

    def ask(self, data: bytes) -> str:
        """Send bytes and read one response."""
        with self.connect() as one:
            one.sendall(data)
            answer = b""
            while b"\r\n\r\n" not in answer and (part := one.recv(1 << 16)):
                answer += part
            head, _, rest = answer.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head)
            missing = int(found[1]) - len(rest) if found else 0
            while missing > 0 and (part := one.recv(1 << 20)):
                missing -= len(part)
            return head[9:12].decode() or "closed"

    def regular(self) -> str:
        user = self.random.randrange(1, 400) * 10
        return self.ask(request("POST", "/recommend", {"user": user, "k": 10}))

    def others(self) -> str:
        return self.ask(self.random.choice([
            request("POST", "/score", {"pairs": [[10, 0], [20, 3]] * 50}),
            request("POST", "/similar", {"item": 3, "k": 20}),
            request("POST", "/fold-in", {"ratings": [[0, 4], [3, 5]]}),
            request("POST", "/explain", {"item": 0, "user": 30}),
            request("GET", "/items?query=film"), request("GET", "/map"), request("GET", "/openapi.json"),
            request("GET", "/metrics"), request("GET", "/about"), request("GET", "/"),
            request("POST", "/recommend", gzip.compress(b'{"user": 10}'), "Content-Encoding: gzip"),
        ]))  # fmt: skip

    def dear(self) -> str:
        return self.ask(self.random.choice([
            request("POST", "/recommend", {"user": 10, "k": 1000, "diversity": 0.5}),
            request("POST", "/explain", {"item": 0, "ratings": [[3 * n, 4] for n in range(1, 2900)] * 3}),
            request("POST", "/fold-in", {"ratings": [[3 * n, 4] for n in range(1, 2900)] * 3, "k": 1000}),
            request("POST", "/score", {"pairs": [[10, 3]] * 10_000}),
            request("POST", "/recommend", {"user": 10, "exclude": ["x" * 50] * 9_000}),
            request("POST", "/v2/models/cflightning-scores/infer", large_answer()),
        ]))  # fmt: skip

    def slow_reader(self) -> str:
        with self.connect(window=4096) as one:
            one.sendall(request("POST", "/v2/models/cflightning-scores/infer", large_answer()))
            self.over.wait(12)
            return "held"

    def slow_body(self) -> str:
        with self.connect() as one:
            one.sendall(request("POST", "/recommend", {"user": 10})[: -self.random.randrange(1, 150)])
            self.over.wait(self.random.random() * 8)
            return "held"

    def killed(self) -> str:
        with self.connect() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
            data = request("POST", "/recommend", {"user": 10, "k": 1000, "diversity": 0.5})
            one.sendall(data[: self.random.randrange(1, len(data) + 1)])
            return "killed"

    def garbage(self) -> str:
        return self.ask(self.random.choice([
            self.random.randbytes(300), b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01" * 100,
            b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            request("POST", "/recommend", {"user": 10}, "Connection: Upgrade", "Upgrade: h2c"),
            request("POST", "/recommend", {"user": 10}, "Host: localhost"),
            request("POST", "/recommend", {"user": 10}, host="evil.example"),
            request("POST", "/recommend", {"user": 10}, key="x" * 16),
            request("POST", "/recommend", gzip.compress(b" " * 50_000_000), "Content-Encoding: gzip"),
            request("POST", "/recommend", b"[" * 100_000), request("POST", "/recommend", b'{"user": NaN}'),
            request("GET", "/v2") * 500,
        ]))  # fmt: skip

    def rename(self) -> str:
        """Replace the bundle, as the exporter does."""
        with self.writing:
            fresh, old = self.bundle.with_name("fresh"), self.bundle.with_name("old")
            shutil.copytree(self.spare, fresh)
            manifest = json.loads((fresh / "manifest.json").read_text("utf-8"))
            sys.modules["serve_tests_bundles"].seal(fresh, manifest | {"written_by": f"soak {time.time()}"})
            self.bundle.rename(old)
            fresh.rename(self.bundle)
            shutil.rmtree(old)
        self.over.wait(2)
        return "renamed"

    def damage(self) -> str:
        """Damage the bundle in place: truncated, overwritten, or with files of another."""
        self.over.wait(5)
        with self.writing:
            file = self.random.choice([one for one in self.bundle.iterdir() if one.stat().st_size > 100])
            whole = file.read_bytes()
            how = self.random.choice(["cut", "overwritten", "emptied"])
            with file.open("r+b") as opened:
                if how == "overwritten":
                    opened.write(self.random.randbytes(len(whole)))
                else:
                    opened.truncate(len(whole) // 2 if how == "cut" else 0)
            self.over.wait(1.5)
        return how

    def hang_up(self) -> str:
        self.over.wait(3)
        self.server.process.send_signal(signal.SIGHUP)
        return "sent"

    def run(self, kind: str) -> None:
        """Repeat a client's action until the end."""
        while not self.over.is_set():
            try:
                status = getattr(self, kind)()
            except OSError as error:  # disconnected by the server
                status = type(error).__name__
            self.answers[kind, status] += 1
            if kind in ("garbage", "killed", "others", "dear"):
                self.over.wait(0.02)


CLIENTS = {
    "regular": 2, "others": 2, "dear": 6, "slow_reader": 20, "slow_body": 60, "killed": 2, "garbage": 3, "rename": 1,
    "damage": 1, "hang_up": 1,
}  # fmt: skip
"""Number of clients of each kind."""


def probe(port: int) -> None:
    """Send health checks until standard input ends; print their latencies and this process's delays in seconds."""
    ended, taken, late = threading.Event(), [], []
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    asked = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    while not ended.is_set():
        began = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
                one.sendall(asked)
                answer = b""
                while not answer.endswith(b'{"live":true}'):
                    answer += (part := one.recv(4096))
                    if not part:
                        raise ConnectionError(answer)
            taken.append(time.perf_counter() - began)
        except OSError:
            taken.append(30.0)
        slept = time.perf_counter()
        time.sleep(PROBES)
        late.append(time.perf_counter() - slept - PROBES)
    print(json.dumps({"taken": taken, "late": late}))


def percentiles(seconds: list[float]) -> str:
    """Return p50, p99 and maximum in ms."""
    ordered = sorted(seconds)
    shown = [ordered[int(share * (len(ordered) - 1))] * 1000 for share in (0.5, 0.99, 1)]
    return " / ".join(f"{one:.1f}" for one in shown)


def main() -> int:
    """Run the load and print a table; the exit code is 0 if all bars are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--kinds", default=",".join(CLIENTS), help="of load, comma separated (default: all)")
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        probe(options.probe)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        spare = write_bundle(folder / "spare")
        bundle = Path(shutil.copytree(spare, folder / "live"))
        (folder / "keys").write_text(f"{KEY}\n")
        (folder / "keys").chmod(0o600)
        server = Server(bundle, folder / "keys")
        try:
            return soak(server, Load(server, bundle, spare), options)
        finally:
            server.process.kill()
            server.process.wait()


def soak(server: Server, load: Load, options: argparse.Namespace) -> int:
    """Run the load and compare the results with the bars."""
    load.ask(request("GET", "/v2/health/live"))  # it listens before it is ready
    command = [sys.executable, __file__, "--probe", str(server.port)]
    prober = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    clients = [
        threading.Thread(target=load.run, args=(kind,))
        for kind in options.kinds.split(",")
        for _ in range(CLIENTS[kind])
    ]
    for one in clients:
        one.start()
    seconds, memory, began = options.minutes * 60, [], time.monotonic()
    while (gone := time.monotonic() - began) < seconds and server.process.poll() is None:
        memory.append((gone / seconds, server.resident()))
        time.sleep(min(1.0, seconds / 50))
    health = json.loads(prober.communicate("")[0])
    load.over.set()
    for one in clients:
        one.join(60)
    alive = server.process.poll() is None
    if alive:
        server.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(40)
    early, late = (
        sorted(mb for at, mb in memory if low <= at <= high) or [0.0] for low, high in ((0.1, 0.3), (0.8, 1))
    )
    early_mb, late_mb = early[len(early) // 2], late[len(late) // 2]
    failed = sum(
        count for (_, status), count in load.answers.items() if re.fullmatch("5..", status) and status != "503"
    )
    traces = sum("Traceback" in line for line in server.log)
    code = server.process.returncode
    bars = {
        "5xx but 503": (f"{failed}", failed == 0),
        "health, ms: p50 / p99 / max": (percentiles(health["taken"]), max(health["taken"]) <= SLOWEST),
        "memory, MB: at 20 % / at the end": (f"{early_mb:.0f} / {late_mb:.0f}", late_mb <= GROWTH * early_mb + SLACK),
        "tracebacks in the log": (f"{traces}", traces == 0),
        "alive, and ended when told": (f"{alive}, {code}", alive and code in (0, -signal.SIGTERM)),
    }  # fmt: skip
    print(render(load.answers, bars, options.minutes, health))
    if not all(met for _, met in bars.values()):
        print("".join(server.log[-40:]), file=sys.stderr)
    return 0 if all(met for _, met in bars.values()) else 1


def render(answers: Counter, bars: dict, minutes: float, health: dict) -> str:
    """Format the requests, their responses and the bars."""
    lines = [f"{minutes:g} minutes, {os.cpu_count()} cores, load average at the end {os.getloadavg()[0]:.1f}", ""]
    lines += ["| request | responses |", "| --- | --- |"]
    for kind in dict.fromkeys(kind for kind, _ in sorted(answers)):
        told = ", ".join(f"{status}: {count:,}" for (one, status), count in sorted(answers.items()) if one == kind)
        lines.append(f"| {kind} | {told} |")
    lines += ["", "| bar | measured | met |", "| --- | --- | --- |"]
    lines += [f"| {name} | {value} | {'yes' if met else 'NO'} |" for name, (value, met) in bars.items()]
    lines += [
        "",
        f"(the probe itself woke up late by, ms: {percentiles(health['late'])}; {len(health['taken']):,} probes)",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
