"""``python -m cflightning_serve http`` as a process: start, reload, shutdown, and invalid options."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from cflightning_serve.cli.main import main

POST = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@contextmanager
def process(environment, *options):
    """Start a server process, and yield the process and a client."""
    command = [sys.executable, "-m", "cflightning_serve", "http", *map(str, options), "--port", "0"]
    running = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    limit = threading.Timer(60, running.kill)  # so that waiting for a line that is never logged ends
    limit.start()
    try:
        for line in running.stderr:
            if match := re.search(r"at (http://\S+)", line):
                break
        else:
            raise AssertionError("the server ended")
        with httpx.Client(base_url=match[1], timeout=20) as client:
            yield running, client
    finally:
        limit.cancel()
        running.kill()
        running.wait()
        running.stderr.close()


def wait_for(running, text):
    """Read the log up to a line with a text, and return it."""
    for line in running.stderr:
        if text in line:
            return line
    raise AssertionError(f"{text!r} was not logged")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_start_reload_and_shutdown(copy, choice_bundle, environment, tmp_path):
    (tmp_path / "keys").write_text("a key of some length\n")
    (tmp_path / "keys").chmod(0o600)
    with process(environment, copy, "--poll", "0", "--api-key-file", tmp_path / "keys", "--max-k", 5) as (
        running,
        client,
    ):
        wait_for(running, "startup complete")
        assert client.post("/recommend", json={"user": 10, "k": 5}).status_code == 401
        client.headers["X-API-Key"] = "a key of some length"
        assert client.post("/recommend", json={"user": 10, "k": 5}).status_code == 200
        assert client.post("/recommend", json={"user": 10, "k": 6}).status_code == 422
        before = client.get("/v2/models/cflightning").json()["versions"]

        (copy / "manifest.json").write_text("{")
        os.kill(running.pid, signal.SIGHUP)
        wait_for(running, "kept bundle")
        shutil.rmtree(copy)
        shutil.copytree(choice_bundle, copy)
        os.kill(running.pid, signal.SIGHUP)
        wait_for(running, "serving bundle")
        assert client.get("/v2/models/cflightning").json()["versions"] != before
        assert client.post("/recommend", json={"user": 10}).status_code == 422  # the limit still holds

        os.kill(running.pid, signal.SIGTERM)
        log = running.stderr.read()
        assert running.wait(timeout=20) in (0, -signal.SIGTERM)
        assert "Traceback" not in log


@pytest.mark.slow
def test_a_server_stops_during_an_endless_load(copy, endless, environment):
    with process(environment, copy, "--poll", "0.1") as (running, client):
        wait_for(running, "startup complete")
        copy.rename(copy.with_name("old"))
        shutil.copytree(endless, copy)
        time.sleep(1)
        assert client.post("/recommend", json={"user": 10, "k": 5}).status_code == 200
        os.kill(running.pid, signal.SIGTERM)
        log = running.stderr.read()
        assert running.wait(timeout=20) in (0, -signal.SIGTERM)
        assert "Traceback" not in log


def test_a_request_in_progress_is_finished_before_shutdown(bundle, environment):
    with process(environment, bundle) as (running, client):
        wait_for(running, "startup complete")
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as slow:
            slow.sendall(POST + b"Content-Length: 12\r\n\r\n{")
            client.get("/v2/health/live")
            os.kill(running.pid, signal.SIGTERM)
            wait_for(running, "Shutting down")
            slow.sendall(b'"user": 10}')
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        assert running.wait(timeout=20) in (0, -signal.SIGTERM)


def test_ctrl_c_ends_the_server_without_a_traceback(bundle, environment):
    with process(environment, bundle) as (running, _):
        wait_for(running, "startup complete")
        os.kill(running.pid, signal.SIGINT)
        assert "Traceback" not in running.stderr.read()
        assert running.wait(timeout=20) == 0


@pytest.mark.slow
def test_upgrades_are_not_logged(bundle, environment):
    with process(environment, bundle) as (running, client):
        wait_for(running, "startup complete")
        assert client.get("/v2", headers={"Connection": "Upgrade", "Upgrade": "websocket"}).status_code == 200
        os.kill(running.pid, signal.SIGINT)
        assert "WebSocket" not in running.stderr.read()


@pytest.mark.slow
def test_a_public_address_without_keys_is_warned_of(bundle, environment):
    with process(environment, bundle, "--host", "0.0.0.0") as (running, _):
        assert "--api-key-file" in wait_for(running, "any client that reaches")


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--api-key-file", "/nowhere"], 2, "/nowhere: cannot be read"),
        (["--max-body", "0"], 2, "body must be above 0"),
        (["--max-k", "-1"], 2, "k must be above 0"),
        (["--poll", "-1"], 2, "poll: must be from 0"),
        (["--poll", "nan"], 2, "poll: must be from 0"),
        (["--poll", "inf"], 2, "poll: must be from 0"),
        (["--name", "films/new"], 2, "name: must be of letters"),
        (["--threads", "0"], 2, "threads: must be an integer from 1"),
        (["--port", "99999"], 2, "port must be from 0 to 65535"),
        (["--host", "no such host"], 2, "cannot listen on no such host"),
    ],
)
def test_invalid_options_are_refused(bundle, capsys, options, code, reason):
    assert main(["http", str(bundle), *options]) == code
    log = capsys.readouterr().err
    assert reason in log and log.count("\n") == 1


def test_a_port_in_use_is_refused(bundle, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["http", str(bundle), "--port", str(taken.getsockname()[1])]) == 2
    assert "Address already in use; choose another" in capsys.readouterr().err


def test_a_missing_bundle_is_refused(tmp_path, capsys):
    assert main(["http", str(tmp_path / "none")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_the_error_without_the_extra_names_it(bundle, environment):
    code = "import sys; sys.modules['fastapi'] = None; from cflightning_serve.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "http", bundle], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "cflightning_serve: http: needs fastapi; pip install 'cflightning-serve[http]'\n"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_sighup_reloads_the_keys(bundle, environment, tmp_path):
    file = tmp_path / "keys"
    file.write_text("a key of some length\n")
    file.chmod(0o600)
    with process(environment, bundle, "--api-key-file", file) as (running, client):
        wait_for(running, "startup complete")
        file.write_text("another key of some length\n")
        os.kill(running.pid, signal.SIGHUP)
        ends = time.monotonic() + 20
        while client.get("/metrics", headers={"X-API-Key": "another key of some length"}).status_code != 200:
            assert time.monotonic() < ends
            time.sleep(0.05)
        assert client.get("/metrics", headers={"X-API-Key": "a key of some length"}).status_code == 401
        file.chmod(0o644)
        os.kill(running.pid, signal.SIGHUP)
        assert "kept the API keys" in wait_for(running, "chmod 600")
        assert client.get("/metrics", headers={"X-API-Key": "another key of some length"}).status_code == 200


def test_a_server_runs_without_standard_streams(bundle, environment):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = " ".join(
        map(shlex.quote, [sys.executable, "-m", "cflightning_serve", "http", str(bundle), "--port", str(port)])
    )
    with subprocess.Popen(["sh", "-c", f"exec {command} <&- >&- 2>&-"], env=environment) as running:
        try:
            ends = time.monotonic() + 30
            while True:
                try:
                    assert httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 200
                    break
                except httpx.ConnectError:
                    assert running.poll() is None and time.monotonic() < ends
                    time.sleep(0.1)
            body = {"user": 10}
            assert httpx.post(f"http://127.0.0.1:{port}/recommend", json=body).json()["known_user"]
        finally:
            running.kill()
