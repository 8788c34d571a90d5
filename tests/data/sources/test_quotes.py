"""No row of a text table is lost inside quotes in silence."""

import pytest

from cflightning.data.sources import load_table
from cflightning.data.sources.table_format import TableFormat
from cflightning.errors import DataError


@pytest.fixture
def load(tmp_path):
    def load(text, name="a.csv", **columns):
        (tmp_path / name).write_text(text, newline="")
        return load_table(path=str(tmp_path / name), table_format=TableFormat(**columns), keep=False)

    return load


TITLED = {"title": "title"}
ROWS = [f"{user},{item},{1 + (user + item) % 5}" for user in range(1, 11) for item in range(1, 6)]


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize(("opens", "closes"), [(3, 40), (3, 4), (3, None), (49, None), (3, 3)])
def test_an_open_quote_in_a_title_takes_in_no_row(load, caplog, opens, closes, ends):
    rows = [f"{row},Song {number}" for number, row in enumerate(ROWS)]
    for place in {opens, closes} - {None}:
        rows[place] = ROWS[place] + ',"Heroes'
    table = load(ends.join(["user,item,rating,title", *rows, ""]), **TITLED)
    assert table.frame["user"].tolist() == [int(row.split(",")[0]) for row in ROWS]
    assert table.frame["rating"].tolist() == [int(row.split(",")[2]) for row in ROWS]
    if opens < 49 and closes != 3:
        assert table.titles[int(ROWS[opens].split(",")[1])] in ("Song 3", '"Heroes')
        assert f"line {opens + 2}: a double quote opens" in caplog.text


@pytest.mark.parametrize("place", ["unread", "item"])
def test_an_open_quote_in_an_id_or_an_unread_column_takes_in_no_row(load, caplog, place):
    text = 'user\titem\trating\tunread\n1\t"Weird Q"\t5\tx\n2\tA\t4\tx\n1\tLow\t3\tx\n2\tB\t4\tx\n3\tLow\t1\tx\n'
    text = text.replace("A\t4\tx", 'A\t4\t"x').replace("B\t4\tx", 'B\t4\tx"') if place == "unread" else text.replace(
        "A", '"A').replace("B", 'B"')  # fmt: skip
    frame = load(text, "a.tsv").frame
    assert len(frame) == 5
    assert frame["item"].tolist()[0] == "Weird Q"
    assert "line 3: a double quote opens" in caplog.text


def test_an_open_quote_beside_real_ones_is_refused_with_its_line(load):
    rows = [f'{row},"Song, No. {number}"' for number, row in enumerate(ROWS)]
    rows[7] = ROWS[7] + ',"Heroes'
    text = "\n".join(["user,item,rating,title", *rows, ""])
    with pytest.raises(DataError, match=r"line 9.*double quote"):
        load(text)
    rows[9] = ROWS[9] + ',Heroes"'
    with pytest.raises(DataError, match="line 9.* a double quote opens"):
        load("\n".join(["user,item,rating,title", *rows, ""]))


def test_an_open_quote_that_is_longer_than_a_block_is_named(load, caplog):
    rows = [f"{user},{item},{1 + item % 5},Song {item} of a long name" for user in range(500) for item in range(100)]
    rows[100] = rows[100].replace("Song", '"Song')
    assert len(load("\n".join(["user,item,rating,title", *rows])).frame) == 50_000
    assert "line 102: a double quote opens" in caplog.text
    rows[200] = '2,100,3,"Song, and dance"'
    with pytest.raises(DataError, match="line 102.* a double quote opens"):
        load("\n".join(["user,item,rating,title", *rows]))


def test_titles_and_ids_of_several_lines_are_read_with_a_warning(load, caplog):
    table = load('user,item,rating,title\n1,"a\nb",3,Low\n\n2,c,4,"Two\nlines"\n', **TITLED)
    assert table.frame["item"].tolist() == ["a\nb", "c"]
    assert "line 2, column 'item': holds a line end" in caplog.text
    assert "line 5, column 'title': holds a line end" in caplog.text


def test_reviews_of_several_lines_are_no_rows(load, caplog):
    text = "user,item,rating,review\n" + "".join(f'{row},"good,\n\nbad, and, fine\n{row}"\n' for row in ROWS)
    assert len(load(text)) == len(ROWS)
    assert "quote" not in caplog.text


def test_a_row_of_the_wrong_length_below_quoted_lines_is_named_by_its_line(load):
    with pytest.raises(DataError, match=r"line 6: must have 4 values like the first line, got 2"):
        load('user,item,rating,review\n\n1,2,3,"a\nb"\n\n1,2\n')


@pytest.mark.parametrize(
    "text",
    [
        "user, item, rating, title\n1, 7 , 3.5, Low\n 2,8,4 ,High\n",
        'user, item, rating, title\n1, "7", 3.5, "Low"\n2 , "8" , 4, "High" \n',
        "user\titem\trating\ttitle\n1 \t 7\t3.5\tLow\n2\t8\t4\t High\n",
        "user;item;rating;title\n1\t;7;3.5\t;Low\n2;8;4;High\n",
    ],
)
def test_blanks_around_values_are_no_part_of_them(load, text):
    table = load(text, **TITLED)
    assert table.frame.values.tolist() == [[1, 7, 3.5], [2, 8, 4]]
    assert table.titles == {7: "Low", 8: "High"}


def test_a_comma_in_a_quoted_value_behind_a_blank(load):
    table = load('user, item, rating, title\n1, 7, 3, "Good, the Bad"\n2, 8, 4, "x, ""y"""\n', **TITLED)
    assert table.titles == {7: "Good, the Bad", 8: 'x,"y"'} or table.titles == {7: "Good, the Bad", 8: 'x, "y"'}


def test_very_many_rows_of_the_wrong_length_end_soon(load):
    with pytest.raises(DataError, match=r"line 3: .* got 4 \('1,2,3,4'; at least 10,000 such lines, delimiter ','\)"):
        load("user,item,rating\n1,2,3\n" + "1,2,3,4\n" * 20_000)
    with pytest.raises(DataError, match=r"line 2, where a double quote opens .* at least 10,000 such lines"):
        load("user,item,rating,title\n" + '1,2,3,"x, y\n' * 30_000)
