"""Text in any encoding: recognised by a mark, given, or guessed and logged; never decoded wrongly in silence."""

import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources import encodings, load_table
from cflightning.data.sources.table_format import TableFormat
from cflightning.errors import DataError


@pytest.fixture
def load(tmp_path):
    def load(raw, **written):
        (tmp_path / "a.csv").write_bytes(raw)
        return (
            load_table(path=str(tmp_path / "a.csv"), table_format=TableFormat(**written), keep=False)
            .frame["item"]
            .tolist()
        )

    return load


ITEMS = {
    "cp1251": ["Война и мир", "Преступление и наказание", "Идиот"],
    "koi8_r": ["Война и мир", "Преступление и наказание", "Идиот"],
    "gb18030": ["红楼梦", "西游记", "水浒传", "三国演义"],
    "cp932": ["千と千尋の神隠し", "となりのトトロ", "もののけ姫"],
    "cp949": ["기생충", "올드보이", "살인의 추억"],
    "cp1252": ["Jörg", "Amélie", "Größe"],
    "latin-1": ["Jörg", "Amélie", "Größe"],
}


def text(items):
    return "user,item,rating\n" + "".join(f"{user},{item},{1 + user % 5}\n" for user, item in enumerate(items * 3))


@pytest.mark.parametrize("encoding", ITEMS)
def test_a_legacy_encoding_is_guessed_and_logged(load, caplog, encoding):
    items = ITEMS[encoding]
    assert load(text(items).encode(encoding)) == items * 3
    assert "is not UTF-8 (line 2, byte" in caplog.text
    assert "--data.table.encoding" in caplog.text


@pytest.mark.parametrize("encoding", [*ITEMS, "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "UTF8"])
def test_an_encoding_that_is_given_is_used(load, caplog, encoding):
    items = ITEMS.get(encoding, ITEMS["gb18030"])
    assert load(text(items).encode(encoding), encoding=encoding) == items * 3
    assert "guess" not in caplog.text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_unicode_is_told_by_its_first_bytes(load, caplog, encoding):
    assert load(text(ITEMS["latin-1"]).encode(encoding)) == ITEMS["latin-1"] * 3
    assert "guess" not in caplog.text


@pytest.mark.parametrize(
    ("bad", "line", "byte", "value"), [(b"21,\xe9,3\n", 11, 4, "0xe9"), (b"21,7,3\n22,\xd0\xb0\xd0", 12, 6, "0xd0")]
)
def test_a_bad_byte_in_utf8_is_named_with_its_line(load, bad, line, byte, value):
    with pytest.raises(DataError, match=rf"line {line}: must be UTF-8, but byte {byte} of the line .* is {value}; "):
        load(text(ITEMS["cp1251"]).encode() + bad)


def test_a_bad_byte_is_found_wherever_blocks_end(load, monkeypatch):
    raw = text(ITEMS["gb18030"]).encode()
    for size in range(1, 9):
        monkeypatch.setattr(encodings, "_BLOCK", size)
        assert load(raw) == ITEMS["gb18030"] * 3
        with pytest.raises(DataError, match=r"line 14: must be UTF-8, but byte 2 .*, and 1 more such byte;"):
            load(raw + b"1\xff\xff,2,3\n")


def test_bytes_that_the_given_encoding_lacks_are_named(load):
    with pytest.raises(DataError, match="line 3: must be cp1252, but byte 3 of the line is none"):
        load(b"user,item,rating\n1,2,3\n2,\x81,3\n", encoding="cp1252")
    with pytest.raises(DataError, match="line 2: must be UTF-8"):
        load(text(ITEMS["latin-1"]).encode("latin-1"), encoding="utf-8")


@pytest.mark.parametrize("encoding", ["bogus", "base64", "", "a\0b"])
def test_an_encoding_that_is_none_is_refused(load, encoding):
    with pytest.raises(DataError, match="--data.table.encoding: must be an encoding"):
        load(b"user,item,rating\n1,2,3\n", encoding=encoding)


def test_the_data_module_takes_an_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes(text(["Вася"]).encode("cp1251"))
    data = RatingsDataModule(str(tmp_path / "a.csv"), table=TableFormat(encoding="cp1251"))
    assert data.rows_to_score.item.values[0] == "Вася"
