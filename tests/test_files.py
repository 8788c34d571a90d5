"""Files are replaced in one step."""

import os
import stat

import pytest

from cflightning.files import replacing


@pytest.fixture
def umask():
    """Sets the umask, and puts it back."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("mask", "private", "allowed"), [(0o022, False, 0o644), (0o077, False, 0o600),
                                                           (0o002, False, 0o664), (0o000, True, 0o600)])  # fmt: skip
@pytest.mark.parametrize(("mode", "content"), [("w", "é\n"), ("wb", b"\x00\xff")])
def test_the_new_file_is_there_at_the_end_for_those_whom_the_umask_lets(
    tmp_path, umask, mode, content, mask, private, allowed
):
    umask(mask)
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path, mode, private=private) as out:
        out.write(content)
        assert path.read_text() == "old"
    assert path.read_bytes() == (content if mode == "wb" else content.encode("utf-8"))
    assert stat.S_IMODE(path.stat().st_mode) == allowed
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), replacing(path, "wb") as out:
        out.writelines([b"half", "no bytes"])
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
