"""API keys: the file, who may read it, how it is read again, and clients that guess."""

import os
import threading
import time

import httpx
import pytest

from cflightning_serve import InputError
from cflightning_serve.http.keys import Keys, WrongKeys
from cflightning_serve.http.serving.bundle import State
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
def test_a_file_that_is_open_to_others_is_refused(file, mode):
    file.chmod(mode)
    with pytest.raises(InputError, match=f"got mode {mode:o}; chmod 600") as refused:
        Keys(file)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640])
def test_a_file_of_its_owner_and_group_is_read(file, mode):
    file.chmod(mode)
    assert Keys(file).knows(KEY)


def test_keys_are_read_again(file):
    keys = Keys(file)
    file.write_bytes(NEW)
    assert keys.knows(KEY) and not keys.knows(NEW)
    keys.reread()
    assert keys.knows(NEW) and not keys.knows(KEY)
    file.write_bytes(b"short")
    with pytest.raises(InputError):
        keys.reread()
    assert keys.knows(NEW)


def test_a_mark_of_byte_order_is_no_part_of_a_key(file):
    file.write_bytes(b"\xef\xbb\xbf" + KEY)
    assert Keys(file).knows(KEY)


def test_wrong_keys_are_slowed_and_logged_and_right_ones_are_not(bundle, start, file, caplog):
    with start(State(Settings(bundle, keys=Keys(file)))) as client:
        url = str(client.base_url)

        def guess():
            with httpx.Client(base_url=url, timeout=60) as one:
                for n in range(6):
                    answers.append(one.get("/metrics", headers={"X-API-Key": f"{n:016}"}).status_code)

        answers, began = [], time.monotonic()
        guessing = [threading.Thread(target=guess) for _ in range(3)]
        for one in guessing:
            one.start()
        for _ in range(5):
            assert client.get("/metrics", headers={"X-API-Key": KEY}).status_code == 200
        assert client.get("/metrics").status_code == 401  # without any key: a page that asks for one
        for one in guessing:
            one.join(60)
        assert set(answers) == {401}
        assert time.monotonic() - began > 2.5
    told = [record.getMessage() for record in caplog.records if "wrong API key" in record.getMessage()]
    assert told and len(told) < 18 and "127.0.0.1" in told[0]
    assert not any(f"{0:016}" in line for line in told)


def test_waits_grow_to_a_bound_and_only_so_many_wait():
    wrong = WrongKeys(seconds=1.0)
    waits = [wrong.note("192.0.2.1") for _ in range(20)]
    assert waits[:3] == [0, 0, 0] and waits[-1] == 1 and waits == sorted(waits)
    assert wrong.note("192.0.2.2") == 0
    wrong.wait("192.0.2.1", WrongKeys.WAITING)
    assert wrong.note("192.0.2.1") is None


def test_addresses_are_remembered_up_to_a_bound_and_networks_are_one():
    wrong = WrongKeys(addresses=10)
    for n in range(1000):
        wrong.note(f"192.0.{n // 250}.{n % 250}")
    assert len(wrong) == 10
    wrong = WrongKeys()
    for n in range(1000):
        wrong.note(f"2001:db8::{n:x}")
    assert len(wrong) == 1
    wrong.note("\n")
    assert len(wrong) == 2
