"""A new bundle takes the old one's place without a failed request; a bad one does not."""

import os
import shutil
import threading
import time

import pytest

from cflightning_serve.http.settings import Settings
from cflightning_serve.http.state import State, Watcher


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


@pytest.fixture(scope="session")
def another(bundles, tmp_path_factory):
    """Other factors for the same ids."""
    tables = bundles.make_tables(titles=True, seed=5)
    return tables, bundles.write_bundle(tmp_path_factory.mktemp("bundles") / "another", tables)


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
    load = state._load
    replace(folder, another[1])
    (folder / "weights.bin").rename(folder.with_name("late"))

    def slow():
        try:
            return load()
        finally:
            folder.with_name("late").rename(folder / "weights.bin")

    monkeypatch.setattr(state, "_load", slow)
    state.look()
    assert state.served is before and count(state, "refused") == 0
    monkeypatch.setattr(state, "_load", load)
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

    def failing():
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
