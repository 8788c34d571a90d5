"""Loaded bundles consist of verified bytes: later changes of files have no effect, earlier ones are detected."""

import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from cflightning_serve import BundleError, Scorer


def truncate(folder, _):
    for path in folder.iterdir():
        os.truncate(path, 0)


def overwrite(folder, _):
    for path in folder.iterdir():
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))


def copy_over(folder, fresh):
    """Overwrite files in place like `cp -r fresh/. folder/`."""
    shutil.copytree(fresh, folder, dirs_exist_ok=True)


@pytest.mark.parametrize("change", [truncate, overwrite, copy_over, lambda folder, _: shutil.rmtree(folder)])
def test_changes_of_the_files_do_not_affect_a_loaded_bundle(bundles, larger, tmp_path, change):
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


def test_loads_during_writing_use_verified_bytes_only(larger):
    folder, tables = larger
    path = folder / "weights.bin"
    original, stop = path.read_bytes(), threading.Event()
    other = bytes(len(original))

    def write():
        while not stop.is_set():
            for data in (other, original):
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
    path.write_bytes(original)
    assert Scorer.load(folder)
