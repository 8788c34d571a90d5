"""API keys: the key file and its reload, and throttling of wrong keys."""

import os
import threading
import time

import httpx
import pytest

from cflightning_serve import InputError
from cflightning_serve.http.api_keys import ApiKeys, WrongKeyThrottle
from cflightning_serve.http.serving.state import ServerState
from cflightning_serve.http.settings import Settings

KEY, NEW = b"0123456789abcdef", b"fedcba9876543210"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys"
    path.write_bytes(KEY + b"\n")
    path.chmod(0o600)
    return path


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
@pytest.mark.parametrize("mode", [0o666, 0o644, 0o604, 0o602, 0o620])
def test_a_file_accessible_to_other_users_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(InputError, match=f"got mode {mode:o}; chmod 600") as refused:
        ApiKeys(file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_file_accessible_to_owner_and_group_is_read(file, mode):
    file.chmod(mode)
    assert ApiKeys(file).accepts(KEY)


@pytest.mark.parametrize("text", [b"", b"\n\n", b"short\n", KEY + b"\nshort\n"])
def test_a_file_without_keys_or_with_short_ones_is_refused(file, text):
    file.write_bytes(text)
    with pytest.raises(InputError, match="16 characters or more"):
        ApiKeys(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        ApiKeys(tmp_path / "keys")


def test_a_reload_replaces_the_keys_unless_the_file_is_invalid(file):
    keys = ApiKeys(file)
    file.write_bytes(NEW)
    assert keys.accepts(KEY) and not keys.accepts(NEW)
    keys.reload()
    assert keys.accepts(NEW) and not keys.accepts(KEY)
    file.write_bytes(b"short")
    with pytest.raises(InputError):
        keys.reload()
    assert keys.accepts(NEW)


def test_a_byte_order_mark_is_not_part_of_a_key(file):
    file.write_bytes(b"\xef\xbb\xbf" + KEY)
    assert ApiKeys(file).accepts(KEY)


@pytest.mark.slow
def test_wrong_keys_are_delayed_and_logged_and_valid_ones_are_not(bundle, start, file, caplog):
    with start(ServerState(Settings(bundle, keys=ApiKeys(file)))) as client:
        url = str(client.base_url)

        def guess():
            with httpx.Client(base_url=url, timeout=60) as guessing_client:
                for n in range(6):
                    statuses.append(guessing_client.get("/metrics", headers={"X-API-Key": f"{n:016}"}).status_code)

        statuses, began = [], time.monotonic()
        threads = [threading.Thread(target=guess) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            assert client.get("/metrics", headers={"X-API-Key": KEY}).status_code == 200
        assert (
            client.get("/metrics").status_code == 401
        )  # a missing key is not delayed: a page requests one from its user
        for thread in threads:
            thread.join(60)
        assert set(statuses) == {401}
        assert time.monotonic() - began > 2.5
    logged = [record.getMessage() for record in caplog.records if "wrong API key" in record.getMessage()]
    assert logged and len(logged) < 18 and "127.0.0.1" in logged[0]
    assert not any(f"{0:016}" in line for line in logged)


def test_delays_grow_to_a_limit_and_the_number_of_delayed_responses_is_limited():
    throttle = WrongKeyThrottle(max_delay=1.0)
    delays = [throttle.record("192.0.2.1") for _ in range(20)]
    assert delays[:3] == [0, 0, 0] and delays[-1] == 1 and delays == sorted(delays)
    assert throttle.record("192.0.2.2") == 0
    throttle.add_delayed("192.0.2.1", WrongKeyThrottle.MAX_DELAYED)
    assert throttle.record("192.0.2.1") is None


def test_the_number_of_remembered_addresses_is_limited_and_a_network_counts_as_one():
    throttle = WrongKeyThrottle(max_addresses=10)
    for n in range(1000):
        throttle.record(f"192.0.{n // 250}.{n % 250}")
    assert len(throttle) == 10
    throttle = WrongKeyThrottle()
    for n in range(1000):
        throttle.record(f"2001:db8::{n:x}")
    assert len(throttle) == 1
    throttle.record("\n")
    assert len(throttle) == 2
