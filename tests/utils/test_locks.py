"""Locks between processes, also where the file system has none."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from cflightning.errors import ConfigError
from cflightning.utils.locks import lock_folder, wait_for_lock

HOLD = (
    "import sys, time; from pathlib import Path; from cflightning.utils.locks import lock_folder\n"
    "with lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


@pytest.fixture(params=[None, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS], ids=str)
def flock(request, monkeypatch):
    """The system's answer to a lock: none is the usual one."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


def test_a_locked_folder_is_refused_with_its_holder(tmp_path, flock, caplog):
    with lock_folder(tmp_path), pytest.raises(ConfigError, match="one command at a time, but ") as told:
        lock_folder(tmp_path, ", or stop it").__enter__()
    assert str(told.value).endswith("uses it; wait until it ends, or stop it")
    if flock != errno.ENOSYS:  # where filelock takes the lock file itself for a marker
        assert f"process {os.getpid()} on" in str(told.value)
    with lock_folder(tmp_path):
        pass
    assert ("has no locks; a marker file is used instead" in caplog.text) == (flock is not None)


def test_a_lock_can_be_taken_after_its_release(tmp_path, flock):
    path = tmp_path / "lock"
    with wait_for_lock(path):
        pass
    with wait_for_lock(path):
        assert path.parent.is_dir()


def test_the_lock_of_a_killed_process_is_released(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"process {process.pid} on .*, since 20"), lock_folder(tmp_path):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with lock_folder(tmp_path):
        pass


def test_other_errors_are_raised(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), wait_for_lock(tmp_path / "file" / "lock"):
        pass
