"""What is served is what was verified: later changes of the files change no answer, and earlier ones are noticed."""

import errno
import gc
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from cflightning_serve import BundleError, Scorer
from cflightning_serve.bundle.files import FileEntry, read_verified


@pytest.fixture
def larger(bundles, tmp_path):
    """A bundle whose tables fill pages of their own, and its tables."""
    tables = bundles.make_tables(users=3000, items=5000, dim=16, titles=True)
    return bundles.write_bundle(tmp_path / "larger", tables), tables


def truncate(folder, _):
    for path in folder.iterdir():
        os.truncate(path, 0)


def overwrite(folder, _):
    for path in folder.iterdir():
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))


def copy_over(folder, fresh):
    """As `cp -r fresh/. folder/` does: each file is emptied, and filled again."""
    shutil.copytree(fresh, folder, dirs_exist_ok=True)


@pytest.mark.parametrize("change", [truncate, overwrite, copy_over, lambda folder, _: shutil.rmtree(folder)])
def test_changes_in_place_change_no_answer(bundles, larger, tmp_path, change):
    """In another process: a truncated file that is mapped would end this one."""
    folder, tables = larger
    fresh = bundles.write_bundle(tmp_path / "fresh", bundles.make_tables(users=3000, items=5000, dim=16, seed=9))
    code = (
        "import sys; from cflightning_serve import Scorer; scorer = Scorer.load(sys.argv[1]); scorer.recommend(10)\n"
        "print('loaded', flush=True); input()\n"
        "for user in range(10, 30000, 300): print(*scorer.recommend(user, 5).items.tolist())\n"
        "print(scorer.title(0), *scorer.similar_items(0, 3).items.tolist())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "loaded\n"
    change(folder, fresh)
    out, _ = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    *lists, last = out.splitlines()
    assert lists == [" ".join(map(str, tables.recommend(user, 5))) for user in range(10, 30000, 300)]
    nearest = tables.item_ids[np.argsort(-tables.cosines(0), kind="stable")[1:4]]
    assert last == f"{tables.titles['0']} {' '.join(map(str, nearest))}"


def test_sixty_loads_while_the_files_are_written_use_verified_bytes_alone(larger):
    folder, tables = larger
    path = folder / "weights.bin"
    whole, stop = path.read_bytes(), threading.Event()
    other = bytes(len(whole))

    def write():
        while not stop.is_set():
            for data in (other, whole):
                with path.open("r+b") as file:
                    file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    loaded = refused = 0
    try:
        for n in range(60):
            try:
                scorer = Scorer.load(folder)
            except BundleError as error:
                assert "sha256 differs from the manifest's" in str(error)  # noqa: PT017  # either is right
                refused += 1
            else:
                user = int(tables.user_ids[n])
                assert scorer.recommend(user, 5).items.tolist() == tables.recommend(user, 5)
                loaded += 1
    finally:
        stop.set()
        writer.join()
    assert loaded + refused == 60
    path.write_bytes(whole)
    assert Scorer.load(folder)


def entry(path):
    data = path.read_bytes()
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size", [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20])
def test_blocks_of_any_number_are_read_whole(tmp_path, size, mapped):
    path = tmp_path / "file"
    path.write_bytes(np.random.default_rng(0).bytes(size))
    assert bytes(read_verified(path, entry(path), mapped=mapped)) == path.read_bytes()
    assert len(read_verified(path, entry(path), mapped=mapped, keep=False)) == 0


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(9 << 20))
    described = entry(path)
    with pytest.raises(BundleError, match="file: must have 9,437,184 bytes, has 100: truncated or replaced"):
        read_verified(path, described, check=lambda: os.truncate(path, 100))


def test_a_pipe_in_place_of_a_file_blocks_nobody(copy):
    (copy / "weights.bin").unlink()
    os.mkfifo(copy / "weights.bin")
    with pytest.raises(BundleError, match="weights.bin: must be a file of the bundle, is not a regular file"):
        Scorer.load(copy)


def test_tables_that_no_memory_holds(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(2 << 20))

    def full(*_, **__):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(BundleError, match=r"file: needs 2,097,152 bytes of memory, which are not available"):
        read_verified(path, entry(path))


def test_sessions_share_the_tables(larger):
    """One copy of the tables, however many graphs read them."""
    folder, _ = larger

    def memory():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) << 10

    scorer = Scorer.load(folder)
    gc.collect()
    before = memory()
    scorer.graphs.open_all()
    for user in (10, 20, 30):
        scorer.recommend(user)
        scorer.similar_items(0)
    assert memory() - before < 40 << 20  # of sessions and their scratch memory
    whole = np.frombuffer(scorer.graphs.files.view("weights.bin"), np.uint8)
    assert scorer.graphs.tables
    assert all(np.shares_memory(table, whole) for table in scorer.graphs.tables)
