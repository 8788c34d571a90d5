"""A new bundle takes the old one's place without a failed request; a bad one does not."""

import os
import shutil
import threading
import time

import pytest

from cflightning_serve import BundleError
from cflightning_serve.http.serving import bundle as state_module
from cflightning_serve.http.serving.bundle import State, Watcher
from cflightning_serve.http.settings import Settings


@pytest.fixture
def served(copy):
    """A state that looks only when told to, and its folder."""
    state = State(Settings(copy, poll=0))
    return state, copy


def replace(folder, fresh):
    """As the exporter does it: the new one beside, then moved into place."""
    scratch, old = folder.with_name("scratch"), folder.with_name("old")
    shutil.copytree(fresh, scratch)
    os.replace(folder, old)
    os.replace(scratch, folder)
    shutil.rmtree(old)


def count(state, outcome):
    return state.metrics.registry.get_sample_value("cflightning_reloads_total", {"outcome": outcome})


def test_another_bundle_is_taken_up_and_the_old_one_answers_to_its_end(served, another, tables):
    state, folder = served
    before = state.served
    replace(folder, another[1])
    state.look()
    assert state.served is not before and state.served.version != before.version
    user = int(tables.user_ids[0])
    assert state.served.scorer.recommend(user, 5).items.tolist() == another[0].recommend(user, 5)
    # Its folder is gone, graphs that were never asked are open all the same.
    assert before.scorer.recommend(user, 5).items.tolist() == tables.recommend(user, 5)
    assert before.scorer.similar_items(0).items.tolist()
    assert before.scorer.title(0) == tables.titles["0"]
    assert (count(state, "loaded"), count(state, "refused")) == (1, 0)


def test_the_same_bundle_again_is_left_alone(served, bundle):
    state, folder = served
    before = state.served
    replace(folder, bundle)
    state.look()
    os.utime(folder / "weights.bin")
    state.look()
    assert state.served is before
    assert count(state, "loaded") == 0


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "no manifest", "gone"])
def test_a_bad_bundle_is_refused_once_and_the_old_one_kept(served, another, damage, caplog):
    state, folder = served
    before = state.served
    replace(folder, another[1])
    weights = folder / "weights.bin"
    if damage == "missing":
        weights.unlink()
    elif damage == "truncated":
        os.truncate(weights, 100)
    elif damage == "flipped":
        data = bytearray(weights.read_bytes())
        data[50] ^= 1
        weights.write_bytes(data)
    elif damage == "no manifest":
        (folder / "manifest.json").write_text("{")
    else:
        shutil.rmtree(folder)
    state.look()
    state.look()
    assert state.served is before
    assert (count(state, "loaded"), count(state, "refused")) == (0, 1)
    assert caplog.text.count("kept bundle") == 1
    assert before.scorer.recommend(10).items.tolist()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(another[1], folder)
    state.look()
    assert state.served is not before
    assert (count(state, "loaded"), count(state, "refused")) == (1, 1)


def test_a_bundle_that_is_still_being_written_is_no_complaint(served, another, monkeypatch):
    state, folder = served
    before = state.served
    load = state_module.load
    replace(folder, another[1])
    (folder / "weights.bin").rename(folder.with_name("late"))

    def slow(*asked):
        try:
            return load(*asked)
        finally:
            folder.with_name("late").rename(folder / "weights.bin")

    monkeypatch.setattr(state_module, "load", slow)
    state.look()
    assert state.served is before and count(state, "refused") == 0
    monkeypatch.setattr(state_module, "load", load)
    state.look()
    assert state.served is not before and count(state, "loaded") == 1


def test_a_link_that_moves_on(bundle, another, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(bundle)
    state = State(Settings(link, poll=0))
    before = state.served
    link.unlink()
    link.symlink_to(another[1])
    state.look()
    assert state.served is not before


def test_ten_bundles_under_load_without_a_failed_request(copy, bundle, another, start, tables):
    state = State(Settings(copy, poll=0.02))
    watcher = Watcher(state)
    expected = {tuple(one.recommend(10, 5)) for one in (tables, another[0])}
    assert len(expected) == 2
    answers, failed, stop = set(), [], threading.Event()

    def ask(client):
        while not stop.is_set():
            reply = client.post("/recommend", json={"user": 10, "k": 5})
            if reply.status_code == 200:
                answers.add(tuple(one["item"] for one in reply.json()["items"]))
            else:
                failed.append(reply.text)

    with start(state, watcher) as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for n in range(10):
            replace(copy, (another[1], bundle)[n % 2])
            watcher.wake()
            limit = time.monotonic() + 10
            while count(state, "loaded") <= n and time.monotonic() < limit:
                time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert not watcher.is_alive()
    assert failed == []
    assert count(state, "loaded") == 10
    assert answers == expected


def test_whatever_happens_the_watcher_goes_on(served, another, monkeypatch):
    state, folder = served
    watcher = Watcher(state)
    looks = threading.Semaphore(0)
    real = state.look

    def failing(**_):
        looks.release()
        raise RuntimeError("never thought of")

    monkeypatch.setattr(state, "look", failing)
    watcher.start()
    watcher.wake()
    assert looks.acquire(timeout=5)
    monkeypatch.setattr(state, "look", real)
    replace(folder, another[1])
    limit = time.monotonic() + 5
    while count(state, "loaded") == 0 and time.monotonic() < limit:
        watcher.wake()
        time.sleep(0.01)
    watcher.stop()
    assert count(state, "loaded") == 1


# Changes in place -----------------------------------------------------------------------------------------------------


def truncate(folder, _):
    for path in folder.glob("weights.bin"):
        os.truncate(path, 100)


def overwrite(folder, _):
    data = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(bytes(len(data)))


@pytest.mark.parametrize("change", [truncate, overwrite])
def test_files_changed_under_an_equal_manifest_are_an_error_and_change_nothing(served, tables, bundle, change, caplog):
    state, folder = served
    before = state.served
    change(folder, bundle)
    for _ in range(3):
        state.look()
    assert state.served is before
    assert [count(state, outcome) for outcome in ("loaded", "refused", "changed")] == [0, 0, 1]
    [line] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "weights.bin" in line.getMessage() and "replace bundles by renaming, never in place" in line.getMessage()
    assert line.exc_info is None
    for user in tables.user_ids.tolist():
        assert before.scorer.recommend(user, 5).items.tolist() == tables.recommend(user, 5)
    shutil.copy(bundle / "weights.bin", folder)  # whole again: no more complaints
    state.look()
    assert count(state, "changed") == 1


def test_a_bundle_copied_over_the_one_in_use_is_taken_up(served, another):
    """Not the documented way, but it works: the one in use does not mind, and the files are whole in the end."""
    state, folder = served
    before = state.served
    shutil.copytree(another[1], folder, dirs_exist_ok=True)
    state.look()
    assert state.served is not before
    assert before.scorer.similar_items(0).items.tolist()


# Failures and loads without end ---------------------------------------------------------------------------------------


def test_a_bundle_that_cannot_be_read_for_a_moment_is_tried_again(copy, another):
    state = State(Settings(copy, poll=0.02))
    before = state.served
    replace(copy, another[1])
    (copy / "weights.bin").rename(copy.with_name("away"))
    state.look()
    mark = state._mark
    copy.with_name("away").rename(copy / "weights.bin")
    state._mark = state_module.mark_folder(copy)  # as if the folder had looked the same throughout
    assert state._mark != mark
    limit = time.monotonic() + 10
    while state.served is before and time.monotonic() < limit:
        state.look()
    assert state.served is not before
    assert (count(state, "refused"), count(state, "loaded")) == (1, 1)


def test_the_time_between_two_tries_doubles(copy, caplog):
    state = State(Settings(copy, poll=1.0))
    (copy / "manifest.json").write_text("{")
    for _ in range(4):
        state.look()
        state._again = 0.0
    delays = [record.getMessage().rpartition("; ")[2] for record in caplog.records if record.levelname == "ERROR"]
    assert delays == [f"trying again in {seconds} s" for seconds in (1, 2, 4, 8)]
    for _ in range(100):
        state.look()
        state._again = 0.0
    assert caplog.records[-1].getMessage().endswith("trying again in 300 s")


def test_sighup_forces_a_look(served, another):
    """A failure that left no trace in the folder, as a share that was away."""
    state, folder = served
    before = state.served
    replace(folder, another[1])
    state._mark = state_module.mark_folder(folder)
    state.look()
    assert state.served is before
    watcher = Watcher(state)
    watcher.start()
    watcher.wake()
    limit = time.monotonic() + 10
    while count(state, "loaded") == 0 and time.monotonic() < limit:
        time.sleep(0.01)
    watcher.stop()
    assert state.served is not before


def test_a_load_without_end_is_given_up(copy, endless, another, caplog):
    state = State(Settings(copy, poll=0, load_seconds=1.0))
    before = state.served
    replace(copy, endless)
    state.look()
    assert state.served is before and count(state, "refused") == 1
    assert "must be loaded and give a first answer within 1 seconds, did not" in caplog.text
    assert state._left == []  # it has ended, and holds nothing
    replace(copy, another[1])
    state.look()
    assert state.served is not before


def test_the_next_bundle_does_not_wait_for_a_load_without_end(copy, endless, another):
    state = State(Settings(copy, poll=0.02, load_seconds=1000.0))
    before = state.served
    watcher = Watcher(state)
    watcher.start()
    replace(copy, endless)
    time.sleep(0.5)
    replace(copy, another[1])
    limit = time.monotonic() + 20
    while count(state, "loaded") == 0 and time.monotonic() < limit:
        time.sleep(0.01)
    watcher.stop()
    assert state.served is not before
    assert count(state, "refused") == 0


def test_a_server_ends_while_it_loads_without_end(copy, endless):
    state = State(Settings(copy, poll=0.02, load_seconds=1000.0))
    watcher = Watcher(state)
    watcher.start()
    replace(copy, endless)
    time.sleep(0.5)
    began = time.monotonic()
    watcher.stop()
    assert time.monotonic() - began < 10
    assert not watcher.is_alive()


def test_a_server_does_not_start_with_a_load_without_end(endless):
    with pytest.raises(BundleError, match="must be loaded and give a first answer within 0.5 seconds"):
        State(Settings(endless, load_seconds=0.5))


def test_loads_that_cannot_be_stopped_are_left_and_counted(served, another, monkeypatch, caplog):
    """As one node of a graph that takes for ever."""
    state, folder = served
    stuck = threading.Event()
    monkeypatch.setattr(state_module, "load", lambda *_: stuck.wait(60))
    monkeypatch.setattr(state_module, "_PATIENCE", 0.05)
    state.settings = Settings(folder, poll=0, load_seconds=0.05)
    replace(folder, another[1])
    try:
        for _ in range(3):
            state.look(forced=True)
        assert len(state._left) == 2 and state.is_left_with_work()
        assert "2 loads that were given up have not ended; restart the server" in caplog.text
    finally:
        stuck.set()
        for job in state._left:
            job.join()
    assert not state.is_left_with_work()
