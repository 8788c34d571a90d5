"""Reloads: a new bundle replaces the loaded one without a failed request, a damaged one does not."""

import os
import shutil
import threading
import time

import pytest

from cflightning_serve import BundleError, Scorer
from cflightning_serve.http.serving.bundle_loading import load_bundle
from cflightning_serve.http.serving.state import BundleWatcher, ServerState
from cflightning_serve.http.settings import Settings


@pytest.fixture
def served(copy):
    """A state that checks its folder only when told to, and the folder."""
    return ServerState(Settings(copy, poll=0)), copy


def replace(folder, fresh):
    """Replace a bundle as the exporter does: write the new one beside it, then rename."""
    scratch, old = folder.with_name("scratch"), folder.with_name("old")
    shutil.copytree(fresh, scratch)
    os.replace(folder, old)
    os.replace(scratch, folder)
    shutil.rmtree(old)


def count(state, outcome):
    return state.metrics.registry.get_sample_value("cflightning_reloads_total", {"outcome": outcome})


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def loads_in_progress():
    return [thread for thread in threading.enumerate() if thread.name == "bundle-loading"]


class FailingOnce:
    """A loader whose second load fails, without a trace in the folder, as when a network share is away."""

    def __init__(self):
        self.loads = 0

    def __call__(self, settings, cancellation):
        self.loads += 1
        if self.loads == 2:
            raise BundleError("the share is away")
        return load_bundle(settings, cancellation)


def test_a_new_bundle_is_loaded_and_the_old_one_can_finish(served, another, tables):
    state, folder = served
    before = state.bundle
    replace(folder, another[1])
    state.reload_if_changed()
    assert state.bundle is not before and state.bundle.version != before.version
    user = int(tables.user_ids[0])
    assert state.bundle.scorer.recommend(user, 5).items.tolist() == another[0].recommend(user, 5)
    # All graphs of the old bundle are open, although its folder is gone.
    assert before.scorer.recommend(user, 5).items.tolist() == tables.recommend(user, 5)
    assert before.scorer.similar_items(0).items.tolist()
    assert before.scorer.title(0) == tables.titles["0"]
    assert (count(state, "loaded"), count(state, "refused")) == (1, 0)


def test_an_equal_bundle_is_not_loaded_again(served, bundle):
    state, folder = served
    before = state.bundle
    replace(folder, bundle)
    state.reload_if_changed()
    os.utime(folder / "weights.bin")
    state.reload_if_changed()
    assert state.bundle is before
    assert count(state, "loaded") == 0


@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "no manifest", "gone"])
def test_a_damaged_bundle_is_refused_once_and_the_loaded_one_kept(served, another, damage, caplog):
    state, folder = served
    before = state.bundle
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
    state.reload_if_changed()
    state.reload_if_changed()
    assert state.bundle is before
    assert (count(state, "loaded"), count(state, "refused")) == (0, 1)
    assert caplog.text.count("kept bundle") == 1
    assert before.scorer.recommend(10).items.tolist()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(another[1], folder)
    state.reload_if_changed()
    assert state.bundle is not before
    assert (count(state, "loaded"), count(state, "refused")) == (1, 1)


def test_a_bundle_that_is_still_being_written_is_not_refused(copy, another):
    class Completed:
        """A loader whose second load fails, while the missing file arrives."""

        def __init__(self):
            self.loads = 0

        def __call__(self, settings, cancellation):
            self.loads += 1
            try:
                return load_bundle(settings, cancellation)
            finally:
                if self.loads == 2:
                    copy.with_name("late").rename(copy / "weights.bin")

    state = ServerState(Settings(copy, poll=0), loader=Completed())
    before = state.bundle
    replace(copy, another[1])
    (copy / "weights.bin").rename(copy.with_name("late"))
    state.reload_if_changed()
    assert state.bundle is before and count(state, "refused") == 0
    state.reload_if_changed()
    assert state.bundle is not before and count(state, "loaded") == 1


def test_a_symbolic_link_to_another_bundle_is_a_new_bundle(bundle, another, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(bundle)
    state = ServerState(Settings(link, poll=0))
    before = state.bundle
    link.unlink()
    link.symlink_to(another[1])
    state.reload_if_changed()
    assert state.bundle is not before


def test_ten_bundles_under_load_without_a_failed_request(copy, bundle, another, start, tables):
    state = ServerState(Settings(copy, poll=0.02))
    watcher = BundleWatcher(state)
    expected = {tuple(recommender.recommend(10, 5)) for recommender in (tables, another[0])}
    assert len(expected) == 2
    lists, failed, stop = set(), [], threading.Event()

    def send_requests(client):
        while not stop.is_set():
            response = client.post("/recommend", json={"user": 10, "k": 5})
            if response.status_code == 200:
                lists.add(tuple(item["item"] for item in response.json()["items"]))
            else:
                failed.append(response.text)

    with start(state, watcher) as client:
        threads = [threading.Thread(target=send_requests, args=(client,)) for _ in range(2)]
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
    assert lists == expected


def test_the_watcher_survives_an_unexpected_exception(copy, another):
    class FailingState(ServerState):
        failures = threading.Semaphore(0)
        broken = True

        def reload_if_changed(self, *, force=False):
            if self.broken:
                self.failures.release()
                raise RuntimeError("unexpected")
            super().reload_if_changed(force=force)

    state = FailingState(Settings(copy, poll=0))
    watcher = BundleWatcher(state)
    watcher.start()
    watcher.wake()
    assert state.failures.acquire(timeout=5)
    state.broken = False
    replace(copy, another[1])
    watcher.wake()
    wait_until(lambda: count(state, "loaded") == 1)
    watcher.stop()


# Changes in place -----------------------------------------------------------------------------------------------------


def truncate(folder):
    os.truncate(folder / "weights.bin", 100)


def overwrite(folder):
    data = (folder / "weights.bin").read_bytes()
    (folder / "weights.bin").write_bytes(bytes(len(data)))


@pytest.mark.parametrize("change", [truncate, overwrite])
def test_files_changed_in_place_are_an_error_and_leave_responses_as_they_were(served, tables, bundle, change, caplog):
    state, folder = served
    before = state.bundle
    change(folder)
    for _ in range(3):
        state.reload_if_changed()
    assert state.bundle is before
    assert [count(state, outcome) for outcome in ("loaded", "refused", "changed")] == [0, 0, 1]
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "weights.bin" in record.getMessage()
    assert "replace bundles by renaming, never in place" in record.getMessage()
    assert record.exc_info is None
    for user in tables.user_ids.tolist():
        assert before.scorer.recommend(user, 5).items.tolist() == tables.recommend(user, 5)
    shutil.copy(bundle / "weights.bin", folder)  # repaired: no further error
    state.reload_if_changed()
    assert count(state, "changed") == 1


def test_a_bundle_copied_over_the_loaded_one_is_loaded(served, another):
    """Not the documented way, but it works: the loaded bundle is in memory, and the files are complete in the end."""
    state, folder = served
    before = state.bundle
    shutil.copytree(another[1], folder, dirs_exist_ok=True)
    state.reload_if_changed()
    assert state.bundle is not before
    assert before.scorer.similar_items(0).items.tolist()


# Retries and endless loads --------------------------------------------------------------------------------------------


def test_a_failed_load_is_repeated_although_the_folder_is_unchanged(copy, another):
    state = ServerState(Settings(copy, poll=0.02), loader=FailingOnce())
    before = state.bundle
    replace(copy, another[1])
    state.reload_if_changed()
    assert state.bundle is before and count(state, "refused") == 1

    def loaded():
        state.reload_if_changed()
        return state.bundle is not before

    wait_until(loaded)
    assert (count(state, "refused"), count(state, "loaded")) == (1, 1)


def test_the_delay_before_a_retry_doubles_up_to_a_limit(copy, caplog):
    now = 0.0
    state = ServerState(Settings(copy, poll=1.0), clock=lambda: now)
    (copy / "manifest.json").write_text("{")
    for _ in range(12):
        state.reload_if_changed()
        now += 1e6
    delays = [record.getMessage().rpartition("; ")[2] for record in caplog.records if record.levelname == "ERROR"]
    expected = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert delays == [f"trying again in {seconds} s" for seconds in expected]


def test_waking_the_watcher_repeats_a_failed_load(copy, another):
    state = ServerState(Settings(copy, poll=0), loader=FailingOnce())
    before = state.bundle
    replace(copy, another[1])
    state.reload_if_changed()
    state.reload_if_changed()
    assert state.bundle is before
    watcher = BundleWatcher(state)
    watcher.start()
    watcher.wake()
    wait_until(lambda: count(state, "loaded") == 1)
    watcher.stop()
    assert state.bundle is not before


def test_an_endless_load_is_cancelled_after_its_timeout(copy, endless, another, caplog):
    state = ServerState(Settings(copy, poll=0, load_seconds=1.0))
    before = state.bundle
    replace(copy, endless)
    state.reload_if_changed()
    assert state.bundle is before and count(state, "refused") == 1
    assert "must be loaded and give a first answer within 1 seconds, did not" in caplog.text
    assert state.abandoned_loads == 0 and loads_in_progress() == []
    replace(copy, another[1])
    state.reload_if_changed()
    assert state.bundle is not before


def test_the_next_bundle_does_not_wait_for_an_endless_load(copy, endless, another):
    state = ServerState(Settings(copy, poll=0.02, load_seconds=1000.0))
    before = state.bundle
    watcher = BundleWatcher(state)
    watcher.start()
    replace(copy, endless)
    wait_until(loads_in_progress)
    replace(copy, another[1])
    wait_until(lambda: count(state, "loaded") == 1, 20)
    watcher.stop()
    assert state.bundle is not before
    assert count(state, "refused") == 0


def test_a_server_stops_during_an_endless_load(copy, endless):
    state = ServerState(Settings(copy, poll=0.02, load_seconds=1000.0))
    watcher = BundleWatcher(state)
    watcher.start()
    replace(copy, endless)
    wait_until(loads_in_progress)
    began = time.monotonic()
    watcher.stop()
    assert time.monotonic() - began < 10
    assert not watcher.is_alive()


def test_a_server_does_not_start_with_an_endless_load(endless):
    with pytest.raises(BundleError, match=r"must be loaded and give a first answer within 0\.5 seconds"):
        ServerState(Settings(endless, load_seconds=0.5))


def test_loads_that_cannot_be_cancelled_are_abandoned_and_limited(copy, another, caplog):
    stuck = threading.Event()  # as one node of a graph that never ends
    state = ServerState(
        Settings(copy, poll=0, load_seconds=0.05),
        Scorer.load(copy),
        loader=lambda *_: stuck.wait(60),
        cancel_timeout=0.05,
    )
    replace(copy, another[1])
    try:
        for _ in range(3):
            state.reload_if_changed(force=True)
        assert state.abandoned_loads == 2
        assert "2 cancelled loads are still running; restart the server" in caplog.text
    finally:
        stuck.set()
        for thread in loads_in_progress():
            thread.join()
    assert state.abandoned_loads == 0
