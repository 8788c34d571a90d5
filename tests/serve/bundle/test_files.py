"""Safe reading of files: lengths, digests, links, pipes, memory and gzip."""

import errno
import gzip
import hashlib
import mmap
import os
import tracemalloc

import numpy as np
import pytest

from cflightning_serve import BundleError, Manifest, Scorer
from cflightning_serve.bundle.files import FileEntry, decompress, read_verified

MEGABYTE = 1 << 20


def entry(path):
    data = path.read_bytes()
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size", [0, 1, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20])
def test_files_of_any_number_of_blocks_are_read_completely(tmp_path, size, mapped):
    path = tmp_path / "file"
    path.write_bytes(np.random.default_rng(0).bytes(size))
    assert bytes(read_verified(path, entry(path), mapped=mapped)) == path.read_bytes()
    assert len(read_verified(path, entry(path), mapped=mapped, keep=False)) == 0


def test_a_file_that_shrinks_during_reading_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(9 << 20))
    described = entry(path)
    with pytest.raises(BundleError, match="file: must have 9,437,184 bytes, has 100: truncated or replaced"):
        read_verified(path, described, check=lambda: os.truncate(path, 100))


def test_a_pipe_instead_of_a_file_is_refused_without_blocking(copy):
    (copy / "weights.bin").unlink()
    os.mkfifo(copy / "weights.bin")
    with pytest.raises(BundleError, match="weights.bin: must be a file of the bundle, is not a regular file"):
        Scorer.load(copy)


def test_tables_larger_than_the_memory_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(bytes(2 << 20))

    def full(*_, **__):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", full)
    with pytest.raises(BundleError, match=r"file: needs 2,097,152 bytes of memory, which are not available"):
        read_verified(path, entry(path))


def test_the_old_bundle_of_an_interrupted_replacement_is_found(copy):
    replaced = copy.with_name(".bundle-0123456789abcdef.old")
    copy.rename(replaced)
    assert Manifest.read(copy).folder == replaced
    replaced.rename(copy.with_name(".bundle-old"))
    with pytest.raises(BundleError, match="does not exist"):
        Manifest.read(copy)


def test_a_decompression_bomb_is_refused_early(bundles, compressed):
    bomb = gzip.compress(b'{"1": "' + bytes(100 * MEGABYTE) + b'"}')
    assert len(bomb) < MEGABYTE
    (compressed / "titles.json.gz").write_bytes(bomb)
    bundles.reseal(compressed)
    scorer = Scorer.load(compressed)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match=r"titles\.json\.gz: must decompress to at most [\d,]+ bytes"):
            scorer.title(0)
        assert tracemalloc.get_traced_memory()[1] < 70 * MEGABYTE
    finally:
        tracemalloc.stop()


def test_the_limit_of_decompression_is_exact(tmp_path):
    path = tmp_path / "a.json.gz"

    def written(size):
        path.write_bytes(gzip.compress(b"[" + b" " * (size - 2) + b"]", mtime=0))
        return 16 * MEGABYTE + 64 * path.stat().st_size

    limit = 17 * MEGABYTE
    while (actual := written(limit)) != limit:  # the limit depends on the compressed size
        limit = actual
    assert len(decompress(path, path.read_bytes())) == limit
    with pytest.raises(BundleError, match=f"at most {written(limit + 1):,} bytes"):
        decompress(path, path.read_bytes())
