"""The same table in any format is the same table; what cannot be read is named in one line, never quoted."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import threading
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.orc
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources import load_table
from cflightning.data.sources.table_format import TableFormat
from cflightning.errors import DataError

PAIRS = np.random.default_rng(5).permutation(300)[:120]
FRAME = pd.DataFrame(
    {
        "userId": PAIRS // 15 + 1,
        "movieId": PAIRS % 15 + 1,
        "rating": 0.5 + PAIRS % 10 / 2,
        "timestamp": 964_980_000 + 86_400 * PAIRS,
    }
)
TEXT = FRAME.to_csv(index=False).encode()
LINES = "".join(json.dumps(row) + "\n" for row in FRAME.to_dict("records")).encode()
TABLE = pa.table(FRAME.to_dict("list"))


def load(path, published_split=None, **written):
    return load_table(path=str(path), table_format=TableFormat(**written), published_split=published_split, keep=False)


def message(path, **options):
    with pytest.raises(DataError) as caught:
        load(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < len(str(path)) + 600
    return text


def same(table, frame=FRAME):
    expected = frame.rename(columns={"userId": "user", "movieId": "item"}).astype({"rating": np.float32})
    pd.testing.assert_frame_equal(table.frame.reset_index(drop=True), expected.reset_index(drop=True))


def zipped(**members):
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return box.getvalue()


def written(write):
    box = io.BytesIO()
    write(box)
    return box.getvalue()


def stream(box):
    with pa.ipc.new_stream(box, TABLE.schema) as out:
        out.write_table(TABLE)


PACKED = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE),
    "zst": lambda raw: pa.compress(raw, codec="zstd", asbytes=True),
    "lz4": lambda raw: pa.compress(raw, codec="lz4", asbytes=True),
}
PLAIN = {
    "csv": TEXT,
    "tsv": FRAME.to_csv(index=False, sep="\t").encode(),
    "jsonl": LINES,
    "json": b"[" + LINES.strip().replace(b"\n", b",\n") + b"]",
    "feather": written(lambda box: pyarrow.feather.write_feather(FRAME, box)),
    "arrow": written(lambda box: pyarrow.feather.write_feather(FRAME, box, compression="zstd", chunksize=7)),
    "arrows": written(stream),
    "parquet": written(lambda box: FRAME.to_parquet(box, index=False)),
    "orc": written(lambda box: pyarrow.orc.write_table(TABLE, box)),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_every_format_is_told_by_its_first_bytes(tmp_path, kind):
    for name in (f"a.{kind}", "table"):
        (tmp_path / name).write_bytes(PLAIN[kind])
        same(load(tmp_path / name))


@pytest.mark.parametrize("packed", [*PACKED, "zip"])
def test_every_format_is_unpacked(tmp_path, packed):
    path = tmp_path / "table"
    for kind, raw in PLAIN.items():
        members = {f"one/of_shop.{kind}": raw, "README.txt": "a, b", "__MACOSX/one/x": "x"}
        path.write_bytes(zipped(**members) if packed == "zip" else PACKED[packed](raw))
        same(load(path))


def test_concatenated_streams_are_read_whole(tmp_path):
    half = TEXT.index(b"\n", len(TEXT) // 2) + 1
    for name, pack in PACKED.items():
        if name != "lzma":
            (tmp_path / f"a.csv.{name}").write_bytes(pack(TEXT[:half]) + pack(TEXT[half:]))
            same(load(tmp_path / f"a.csv.{name}"))


@pytest.mark.parametrize("kind", [*PACKED, "feather", "parquet", "orc", "arrows", "zip"])
def test_a_file_that_was_cut_off_is_named(tmp_path, kind):
    raw = PACKED[kind](TEXT) if kind in PACKED else zipped(**{"a.csv": TEXT}) if kind == "zip" else PLAIN[kind]
    (tmp_path / "a").write_bytes(raw[: len(raw) * 2 // 3])
    assert "download it again" in message(tmp_path / "a")


BINARY = {
    "an Excel workbook": zipped(**{"[Content_Types].xml": "<x/>", "xl/workbook.xml": "<x/>"}),
    "an OpenDocument file": zipped(
        mimetype="application/vnd.oasis.opendocument.spreadsheet", **{"content.xml": "<x/>"}
    ),
    "an archive of NumPy arrays": written(lambda box: np.savez(box, a=np.arange(3))),
    "a NumPy array": written(lambda box: np.save(box, np.arange(3))),
    "a pickle": written(FRAME.to_pickle),
    "an SQLite database": b"SQLite format 3\x00" + bytes(100),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "an old Excel workbook": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100),
    "a tar archive": gzip.compress(bytes(257) + b"ustar" + bytes(300)),
    "compressed more than once": gzip.compress(gzip.compress(TEXT)),
    "a binary file": bytes(range(256)) * 9,
}


@pytest.mark.parametrize("what", BINARY)
def test_other_binary_files_are_named_and_not_quoted(tmp_path, what):
    (tmp_path / "a.csv").write_bytes(BINARY[what])
    text = message(tmp_path / "a.csv")
    assert what in text
    assert text.replace(str(tmp_path), "").isprintable()


# JSON ----------------------------------------------------------------------------------------------------------------


def test_json_of_amazon_and_yelp(tmp_path):
    rows = [
        {"reviewerID": "A1", "asin": "0001", "helpful": [0, 1], "style": {"a": 1}, "overall": 5, "unixReviewTime": 9},
        {"reviewerID": "A2", "asin": "0002", "style": None, "overall": 4.5, "unixReviewTime": 10, "text": "1984-01-01"},
        {"reviewerID": "1984-01-01", "asin": "0001", "overall": 3.0, "unixReviewTime": 11},
    ]
    for text in (
        "\n".join(map(json.dumps, rows)),
        "\n\n".join(map(json.dumps, rows)) + "\n\n",
        json.dumps(rows, indent=2),
    ):
        (tmp_path / "a.json").write_text(text)
        frame = load(tmp_path / "a.json").frame
        assert frame.values.tolist() == [
            ["A1", "0001", 5.0, 9],
            ["A2", "0002", 4.5, 10],
            ["1984-01-01", "0001", 3.0, 11],
        ]


def test_json_categories_and_ids_of_several_types(tmp_path):
    rows = [
        {"user": 1, "item": 7, "rating": 1, "g": ["Action", "Drama"]},
        {"user": "x", "item": 8, "rating": 2, "g": []},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = load(tmp_path / "a.jsonl", categories="g")
    assert table.user.values.tolist() == ["1", "x"]
    assert table.categories == {7: ("Action", "Drama")}


def test_integers_that_become_decimals_later_are_read(tmp_path):
    rows = [{"user": row, "item": row % 7, "rating": 3 if row < 3000 else 3.5} for row in range(4000)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = load(tmp_path / "a.jsonl")
    assert table.user.values.tolist() == list(range(4000))
    assert table.rating[-1] == 3.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"user": 1, "item": 2, "rating": 3}\n{"user": 1, "item": \n', "line 2: must be a JSON object"),
        (b"{'user': 1, 'item': 2, 'rating': 3}\n", "line 1: must be a JSON object"),
        (b'[{"user": 1, "item": 2, "rating": 3}, {"user": 1, "it', "row 2: must be a JSON object"),
        (b'[{"user": 1, "item": 2, "rating": 3}] trailing', "must end where its array ends"),
        (b"[[1, 2, 3]]", "row 1: must be a JSON object"),
        (b"[]", "must be a table, got no row"),
        (b'{"user": {"0": 1}, "item": {"0": 2}, "rating": {"0": 3}}', "must be text or a number, got an object"),
        (b'{"user": 1, "item": 2, "rating": null}\n', "line 1, column 'rating'"),
        (b'{"user": 1, "item": 2, "rating": 3}\n{"user": 1, "item": 3}\n', "line 2, column 'rating'"),
        (b'{"user": ' + b"[" * 100_000 + b"\n", "line 1: must be a JSON object"),
        (b'[{"user": ' + b"[" * 100_000 + b"\n", "row 1: must be a JSON object"),
    ],
)
def test_json_that_is_no_table_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / "a.json").write_bytes(text)
    assert said in message(tmp_path / "a.json")


def test_broken_json_is_quoted_without_its_line_end_or_places_within_the_line(tmp_path):
    (tmp_path / "a.json").write_bytes(LINES * 20 + b'{"user": 1, "item"\n')
    assert """got '{"user": 1, "item"' (Expecting ':' delimiter); write""" in message(tmp_path / "a.json")


@pytest.mark.parametrize("above", ["# exported today", "sep=;"])
def test_a_line_above_the_header_is_taken_for_one(tmp_path, above):
    (tmp_path / "a.csv").write_text(f"{above}\nuser;item;rating\n1;2;3\n")
    assert "remove the lines above the header" in message(tmp_path / "a.csv")


def test_numbers_that_are_not_whole_are_named_among_ids_that_are(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,rating\n1.0,2,3\n2.5,2,3\n3,2,3\n")
    assert "line 3, column 'user': ids must be integers or strings, got '2.5'; " in message(tmp_path / "a.csv")


def test_deep_json_beyond_the_first_rows_does_no_harm(tmp_path):
    (tmp_path / "a.json").write_bytes(LINES * 20 + b'{"x": ' + b"[" * 500_000 + b"\n")
    assert "line 2401: must be a JSON object" in message(tmp_path / "a.json")


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_an_array_is_read_in_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr("cflightning.data.sources.json_rows._BLOCK", block)
    frame = FRAME.assign(userId=[f"Jörg 😀 {user}" for user in FRAME.userId])
    (tmp_path / "a.json").write_text(json.dumps(frame.to_dict("records"), ensure_ascii=False), encoding="utf-8")
    assert load(tmp_path / "a.json").user.values.tolist() == frame.userId.tolist()


# Parts and Netflix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("archive", [False, True])
def test_parts_are_one_table(tmp_path, kind, archive):
    path = tmp_path / "parts"
    path.mkdir()
    for part, rows in enumerate(np.array_split(np.arange(len(FRAME)), 3)):
        some, at = FRAME.iloc[rows], path / f"part-{part:05}-c000.{kind}"
        if kind in ("csv", "tsv"):
            some.to_csv(at, index=False, sep="," if kind == "csv" else "\t")
        elif kind in ("json", "jsonl"):
            some.to_json(at, orient="records", lines=kind == "jsonl")
        elif kind == "parquet":
            some.to_parquet(at, index=False)
        elif kind == "orc":
            pyarrow.orc.write_table(pa.table(some.to_dict("list")), at)
        elif kind == "arrows":
            part_table = pa.table(some.to_dict("list"))
            with pa.ipc.new_stream(str(at), part_table.schema) as out:
                out.write_table(part_table)
        else:
            pyarrow.feather.write_feather(some, at)
    for name in ("_SUCCESS", ".part-0.crc", "part-00009-c000.csv"):
        (path / name).touch()
    if archive:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as box:
            for file in path.iterdir():
                box.write(file, f"parts/{file.name}")
        path = tmp_path / "a.zip"
    same(load(path))


def test_partitions_are_columns_and_part_of_the_cached_name(tmp_path, monkeypatch):
    monkeypatch.setattr("cflightning.data.sources.columns_cache.SMALLEST", 1)
    for user, rows in FRAME.groupby("userId"):
        (tmp_path / "t" / f"userId={user}").mkdir(parents=True)
        rows.drop(columns="userId").to_parquet(tmp_path / "t" / f"userId={user}" / "part-0.parquet", index=False)
    expected = FRAME.assign(key=FRAME.userId.astype(str)).sort_values("key", kind="stable").drop(columns="key")
    same(load(tmp_path / "t"), expected)
    for number in ("1", "1001"):
        table = load_table(path=str(tmp_path / "t"), cache=tmp_path / "cache")
        assert (int(number) in table.user.values) and len(table) == len(FRAME)
        (tmp_path / "t" / "userId=1").exists() and (tmp_path / "t" / "userId=1").rename(tmp_path / "t" / "userId=1001")


def test_a_bad_row_is_named_by_its_part(tmp_path):
    (tmp_path / "part-0.csv").write_text("user,item,rating\n1,2,3\n")
    (tmp_path / "part-1.csv").write_text("user,item,rating\n\n1,3,3\n1,4,x\n")
    assert message(tmp_path).startswith(f"{tmp_path}/part-1.csv: line 4, column 'rating'")


def test_files_that_are_no_parts_of_one_table_are_named(tmp_path):
    (tmp_path / "marks.csv").write_text("user,item,rating\n1,2,3\n")
    (tmp_path / "people.csv").write_text("user,age\n1,2\n")
    text = message(tmp_path)
    assert "have different columns" in text
    assert "marks.csv (user, item, rating)" in text
    (tmp_path / "goods.csv").write_text("item,title\n1,2\n")
    assert "name that of the ratings itself" in message(tmp_path)
    assert "has none; leave it out" in message(tmp_path, published_split="u1")


NETFLIX = FRAME.sort_values("movieId", kind="stable").assign(rating=lambda frame: np.ceil(frame.rating))
FILMS = {
    film: f"{film}:\n" + "".join(
        f"{row.userId},{row.rating:.0f},{pd.Timestamp(row.timestamp, unit='s'):%Y-%m-%d}\n" for row in rows.itertuples()
    )
    for film, rows in NETFLIX.groupby("movieId")
}  # fmt: skip


@pytest.mark.parametrize("shape", ["mv", "combined", "two", "zip", "gz", "crlf", "blank"])
def test_netflix(tmp_path, shape):
    whole = "".join(FILMS.values())
    path = tmp_path / "netflix"
    path.mkdir()
    (path / "probe.txt").write_text("1:\n30878\n")
    (path / "movie_titles.csv").write_bytes(b"1,2003,Dinosaur Planet\n")
    if shape == "mv":
        for film, text in FILMS.items():
            (path / f"mv_{film:07}.txt").write_text(text)
    elif shape == "two":
        (path / "combined_data_1.txt").write_text("".join(FILMS[film] for film in range(1, 9)))
        (path / "combined_data_2.txt").write_text("".join(FILMS[film] for film in range(9, 16)))
    elif shape == "zip":
        path = tmp_path / "a.zip"
        path.write_bytes(zipped(**{"training_set/combined_data_1.txt": whole, "probe.txt": "1:\n30878\n"}))
    else:
        path = path / "combined_data_1.txt"
        text = {"crlf": whole.replace("\n", "\r\n"), "blank": "\n" + whole.replace("\n5:\n", "\n\n5:\n\n")}.get(
            shape, whole
        )
        path.write_bytes(gzip.compress(text.encode()) if shape == "gz" else text.encode())
    same(load(path), NETFLIX.assign(timestamp=NETFLIX.timestamp // 86_400 * 86_400))


def test_the_format_of_netflix_is_named(tmp_path):
    (tmp_path / "mv_0000001.txt").write_text("1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n")
    assert load(tmp_path / "mv_0000001.txt").origin.notes[0] == "the format of the Netflix prize"


def test_netflix_lines_that_are_none_are_named(tmp_path):
    (tmp_path / "a.txt").write_text("8:\n1,3,2005-09-06\n2,4,2005-09-06\nx\n3,5,2005-09-07\n")
    assert "line 4: must be a film such as 8: or a rating" in message(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("8:\n1,3,2005-09-06\n\n9:\n2,x,2005-09-06\n")
    assert "line 5, column 'rating'" in message(tmp_path / "a.txt")


def test_rows_that_do_not_fit_the_given_names_are_told_so(tmp_path):
    (tmp_path / "a.tsv").write_text("1\t2\t3\n1\t3\t4\n")
    said = message(tmp_path / "a.tsv", column_names=["user", "item", "rating", "timestamp"])
    assert "line 1: must have 4 values (user, item, rating, timestamp), got 3" in said


def test_no_message_quotes_more_than_two_hundred_characters(tmp_path):
    long = "x" * 100_000
    for name, text in {
        "header.csv": f"{long},{long[1:]},z\n1,2,3\n",
        "twice.csv": f"{long},{long},z\n1,2,3\n",
        "many.csv": ",".join(f"column_{n}" for n in range(5000)) + "\n",
        "row.csv": f"user,item,rating\n{long},2\n",
        "value.csv": f"user,item,rating\n1,2,{long}\n",
        "time.csv": f"user,item,rating,timestamp\n1,2,3,{long}\n",
        "numbers.csv": ",".join(map(str, range(5000))) + "\n",
        "lines.json": f'{{"user": 1, "{long}": 2, "rating": {long}}}\n',
        "object.json": f'{{"user": 1, "{long}": 2, "rating": 1}}\n',
        "array.json": f'["{long}"]',
    }.items():
        (tmp_path / name).write_text(text)
        assert longest_quote(message(tmp_path / name)) <= 200, name
    (tmp_path / "a.csv").write_text("user,item,rating\n1,2,3\n")
    for options in ({"encoding": long}, {"delimiter": long}, {"user": long}):
        assert longest_quote(message(tmp_path / "a.csv", **options)) <= 200
    for number in range(100):
        (tmp_path / f"{number:0200}.png").touch()
    for path in tmp_path.glob("*.[cj]s*"):
        path.unlink()
    assert longest_quote(message(tmp_path)) <= 200


def longest_quote(text):
    """The longest stretch of a message that can be input: without the words of any message in it."""
    return max(len(run) for run in re.split(r"(?:must|found|got|the first line is|such line|; )", text))


# Headers and limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "usual"),
    [
        ("13\t13\t3.5\t97379\n1\t2\t3\t4\n", "user,item,rating,timestamp"),
        ("ann,B01,5\nbob,B02,4\n", "user,item,rating"),
        ("1;2\n3;4\n", "user,item"),
    ],
)
def test_a_table_without_a_header_is_told_how_to_name_its_columns(tmp_path, text, usual):
    (tmp_path / "a.tsv").write_text(text)
    said = message(tmp_path / "a.tsv")
    assert "seems to have none" in said
    assert "--data.table.column_names" in said
    assert usual in said
    assert len(load(tmp_path / "a.tsv", column_names=usual, rating=None if "rating" in usual else "")) == 2


@pytest.mark.slow
def test_too_many_columns_are_refused_from_the_first_line(tmp_path):
    wide = ",".join(f"item {column}" for column in range(20_000)).encode()
    for raw in (wide, zipped(**{"a.csv": wide})):
        (tmp_path / "a").write_bytes(raw)
        assert "must have at most 10,000 columns, got 20,000" in message(tmp_path / "a")
    pa.parquet.write_table(pa.table({f"c{n}": pa.array([], pa.int8()) for n in range(10_001)}), tmp_path / "a.parquet")
    assert "must have at most 10,000 columns, got 10,001" in message(tmp_path / "a.parquet")
    (tmp_path / "a").write_bytes(json.dumps(dict.fromkeys(map(str, range(20_000)), 1)).encode())
    assert "must have at most 10,000 columns, got 20,000" in message(tmp_path / "a")


def test_lines_that_are_too_long_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"x," * 3_000_000)
    assert "must have lines of at most 1,000,000 bytes" in message(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"user,item,rating\n1,2,3\n1,3," + b"9" * 3_000_000)
    assert "line 3: must have at most 1,000,000 bytes" in message(tmp_path / "a")


def test_what_unpacks_to_more_than_it_may_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setenv("CFLIGHTNING_MAX_BYTES", str(len(TEXT) - 1))
    for name, raw in {name: pack(TEXT) for name, pack in PACKED.items()}.items() | {
        "zip": zipped(**{"a.csv": TEXT}), "csv": TEXT
    }.items():  # fmt: skip
        (tmp_path / "a").write_bytes(raw)
        assert "raise it to read it" in message(tmp_path / "a"), name
    monkeypatch.setenv("CFLIGHTNING_MAX_BYTES", str(len(TEXT)))
    (tmp_path / "a").write_bytes(gzip.compress(TEXT))
    same(load(tmp_path / "a"))
    monkeypatch.setenv("CFLIGHTNING_MAX_BYTES", "1 GB")
    assert "must be a number of bytes, got '1 GB'" in message(tmp_path / "a")


@pytest.mark.slow
def test_a_long_text_that_stands_for_all_of_a_column_is_refused_before_it_is_repeated(tmp_path):
    rows = 500_000
    user = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, "int8")), pa.array(["u" * 1000])).cast(pa.string())
    numbers = pa.array(np.ones(rows, "int8"))
    pa.parquet.write_table(pa.table({"user": user, "item": numbers, "rating": numbers}), tmp_path / "bomb")
    assert (tmp_path / "bomb").stat().st_size < 100_000
    assert "which no table of ratings does" in message(tmp_path / "bomb")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "parts", "parquet", "feather"])
def test_bombs_are_refused_by_what_they_say_of_themselves(tmp_path, kind):
    path = tmp_path / "bomb"
    if kind == "parquet":
        table = pa.table({name: pa.repeat(pa.scalar(1), 2_000_000) for name in ("user", "item", "rating")})
        with pa.parquet.ParquetWriter(path, table.schema) as out:
            for _ in range(10):
                out.write_table(table)
    elif kind == "feather":
        batch = pa.record_batch({name: pa.array(np.zeros(3_000_000)) for name in ("user", "item", "rating")})
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(str(path), batch.schema, options=options) as out:
            for _ in range(5):
                out.write_batch(batch)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
            for part in range(1 if kind == "zip" else 5):
                with box.open(f"part-{part}.csv", "w") as out:
                    for _ in range(300 if kind == "zip" else 60):
                        out.write(bytes(1 << 20))
    assert path.stat().st_size < 2_000_000
    assert "which no table of ratings does" in message(path)


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("cflightning.data.sources.limits.available_memory", lambda: 1000)
    (tmp_path / "a.csv").write_bytes(TEXT)
    assert "1,000 bytes of memory are left" in message(tmp_path / "a.csv")
    monkeypatch.setattr("cflightning.data.sources.limits.available_memory", lambda: None)
    same(load(tmp_path / "a.csv"))

    def read(*_):
        raise MemoryError

    monkeypatch.setattr("cflightning.data.sources.archive.read_all", read)
    assert "must fit into memory" in message(tmp_path / "a.csv")


def test_a_pipe_is_read_once_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "movies.csv").write_bytes(b"movieId,title\n" + b"1,Low\n" * 200_000)  # large enough for the cache
    for raw, frame in ((gzip.compress(TEXT), FRAME), (FRAME[:60].to_csv(index=False).encode(), FRAME[:60])):
        writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[raw])
        writer.start()
        same(load_table(path=str(tmp_path / "pipe"), cache=tmp_path / "cache"), frame)
        writer.join()
    assert "must be a file, a folder or a pipe" in message("/dev/zero")


def test_a_data_module_trains_on_any_of_them(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(PACKED["zst"](LINES))
    data = RatingsDataModule(str(tmp_path / "a.jsonl.zst"))
    (tmp_path / "a.csv").write_bytes(TEXT)
    plain = RatingsDataModule(str(tmp_path / "a.csv"))
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(data.split, part), getattr(plain.split, part))
    pd.testing.assert_frame_equal(data.table.frame, plain.table.frame)


def test_a_damaged_file_is_named_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"user,item,rating\n" + b"1,2,3\n" * 9)[:-9])
    assert message("a.csv.gz").startswith("a.csv.gz: is damaged (")


@pytest.mark.parametrize("user", ['"\\ud800"', '["a", "b\\udfff"]'])
def test_half_of_a_character_in_json_is_named_by_its_line(tmp_path, user):
    path = tmp_path / "ratings.jsonl"
    path.write_text(f'{{"user": "a", "item": "i", "rating": 3}}\n{{"user": {user}, "item": "i", "rating": 4}}\n')
    with pytest.raises(DataError, match="line 2, column 'user': must be text, got half of a character"):
        load_table(path=str(path), keep=False)
