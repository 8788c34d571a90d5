"""Files are replaced in one step."""

import stat

import pytest

from cflightning.files import replacing


@pytest.mark.parametrize(("mode", "content"), [("w", "é\n"), ("wb", b"\x00\xff")])
def test_the_new_file_is_there_at_the_end_and_readable_by_others(tmp_path, mode, content):
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path, mode) as out:
        out.write(content)
        assert path.read_text() == "old"
    assert path.read_bytes() == (content if mode == "wb" else content.encode("utf-8"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(TypeError), replacing(path, "wb") as out:
        out.writelines([b"half", "no bytes"])
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
