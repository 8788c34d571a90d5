"""Values of a table: decimal commas, dates, words, missing marks; unambiguous ones are recognised, others reported."""

import re

import numpy as np
import pandas as pd
import pytest

from cflightning import RatingsDataModule
from cflightning.data.sources.table_format import TableFormat
from cflightning.errors import DataError

PLAIN = pd.DataFrame({"user": [1, 2, 3, 4], "item": [5, 6, 5, 6], "rating": [4.0, 3.5, 5.0, 0.5]})


@pytest.fixture
def read(tmp_path):
    """Reads a table, written as text or Parquet, by the options of a data module."""

    def read(frame, /, *, sep=",", suffix="csv", **options):
        path = tmp_path / f"table.{suffix}"
        frame.to_csv(path, index=False, sep=sep) if suffix == "csv" else frame.to_parquet(path)
        return RatingsDataModule(str(path), **options).table

    return read


@pytest.fixture
def error(read):
    def error(frame, /, **options):
        with pytest.raises(DataError) as caught:
            read(frame, **options)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 500
        return message

    return error


@pytest.mark.parametrize("sep", [";", "\t", ",", "|"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("decimal", [None, ","])
def test_decimal_commas(read, sep, suffix, decimal):
    frame = PLAIN.assign(rating=["4", "3,5", "5,0", "0,5"])
    assert read(frame, sep=sep, suffix=suffix, table=TableFormat(decimal=decimal)).rating.tolist() == [4, 3.5, 5, 0.5]


@pytest.mark.parametrize("values", [["1,000", "2,000", "3", "4"], ["1.5", "2,5", "3", "4"], ["4,5,6", "1", "2", "3"]])
def test_commas_that_may_be_something_else(error, values):
    assert "must be a finite number" in error(PLAIN.assign(rating=values), sep=";")


def test_the_decimal_mark_as_it_is_given(read, error):
    assert read(PLAIN.assign(rating=["1,000", "2", "3", "4"]), table=TableFormat(decimal=",")).rating.tolist() == [
        1,
        2,
        3,
        4,
    ]
    assert "--data.table.decimal ," in error(PLAIN.assign(rating=["1,000", "2", "3", "4"]))
    assert "must be a finite number, got '1.5'" in error(
        PLAIN.assign(rating=["1.5", "2", "3", "4"]), table={"decimal": ","}
    )
    assert "must be a finite number, got '2,5'" in error(
        PLAIN.assign(rating=["1.5", "2,5", "3", "4"]), table={"decimal": "."}
    )
    assert "decimal: must be one of ., , or None, got ';'" in error(PLAIN, table={"decimal": ";"})


SECONDS = [964915200, 965001600, 933292800, 964915200]  # 2000-07-30, 2000-07-31, 1999-07-30, 2000-07-30


@pytest.mark.parametrize(
    "form",
    ["%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y", "%m %d, %Y",
     "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%a %b %d %H:%M:%S +0000 %Y",
     "%Y%m%d", "%d.%m.%y", "%m/%d/%y", "%d-%b-%y", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S+00:00"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_dates_that_are_sure(read, form, suffix):
    times = pd.to_datetime(SECONDS, unit="s").strftime(form)
    assert read(PLAIN.assign(timestamp=times), sep=";", suffix=suffix).timestamp.tolist() == SECONDS


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y %H:%M", "%d-%m-%Y"])
def test_dates_that_can_be_read_in_two_ways(read, error, form):
    times = pd.to_datetime(["2000-01-02", "2000-03-04", "2000-05-05", "2000-12-11"])
    frame = PLAIN.assign(timestamp=times.strftime(form))
    message = error(frame)
    assert re.search(r"line 2, column 'timestamp': must be a time that can be read in one way only", message)
    assert f"--data.table.time_format '{form}'" in message
    assert read(frame, table=TableFormat(time_format=form)).timestamp.tolist() == (
        times.astype("int64") // 10**9
    ).tolist() or read(frame, table=TableFormat(time_format=form)).timestamp.tolist() == [
        int(time.timestamp()) for time in times
    ]


def test_dates_that_are_the_same_either_way(read):
    assert (
        read(PLAIN.assign(timestamp=["01/01/2000", "02/02/2000", "03/03/2000", "12/12/2000"])).timestamp[0] == 946684800
    )


def test_one_day_above_12_says_which_for_all(read):
    times = ["01/02/2000"] * 3 + ["13/02/2000"]
    assert read(PLAIN.assign(timestamp=times)).timestamp.tolist() == [949363200] * 3 + [950400000]


@pytest.mark.parametrize(
    "times", [["yesterday", "2000-01-01"] * 2, ["31.02.2000"] * 4, ["13/13/2000"] * 4, ["2000-01-01", "x"] * 2]
)
def test_what_is_no_date(error, times):
    message = error(PLAIN.assign(timestamp=times))
    assert "must be seconds since 1970 or an ISO 8601 date" in message
    assert "--data.table.time_format" in message
    assert "--data.table.timestamp ''" in message


def test_times_that_are_not_of_the_given_form(error):
    frame = PLAIN.assign(timestamp=["30.07.2000", "2000-07-30", "1.1.2000", "30.07.2000"])
    assert "line 3" in (message := error(frame, table={"time_format": "%d.%m.%Y"}))
    assert "must be a time of the form %d.%m.%Y (--data.table.time_format), got '2000-07-30'" in message
    assert "time_format: must be a form such as" in error(frame, table={"time_format": "dd.mm.yyyy"})


@pytest.mark.parametrize("values", [["True", "False", "True", "False"], ["true", "FALSE", "TRUE", "false"]])
def test_truths_are_1_and_0(read, values):
    assert read(PLAIN.assign(rating=values)).rating.tolist() == [1, 0, 1, 0]
    assert read(PLAIN.assign(rating=[True, False, True, False]), suffix="parquet").rating.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("values", "offer"),
    [
        (["like", "dislike"] * 2, "--data.table.rating_values dislike=0,like=1"),
        (["yes", "no"] * 2, "--data.table.rating_values no=0,yes=1"),
        (["4/5", "3/5"] * 2, "--data.table.rating_values 3/5=3,4/5=4"),
        (["100%", "20%"] * 2, "--data.table.rating_values '20%=20,100%=100'"),
        (["3.0/5.0", "4.5/5.0"] * 2, "--data.table.rating_values 3.0/5.0=3.0,4.5/5.0=4.5"),
        (["3 stars", "1 star"] * 2, "--data.table.rating_values '1 star=1,3 stars=3'"),
        (["3.5 / 5", "10/5"] * 2, "--data.table.rating_values '3.5 / 5=3.5,10/5=10'"),
        (["a b", "c"] * 2, "--data.table.rating_values 'a b=0,c=1'"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_words_are_named_with_the_option_that_maps_them(read, error, values, offer, suffix):
    frame = PLAIN.assign(rating=values)
    assert offer in error(frame, suffix=suffix)
    given = offer.split(" ", 1)[1].strip("'")
    numbers = dict(pair.rsplit("=", 1) for pair in given.split(","))
    expected = [float(numbers[value]) for value in values]
    assert read(frame, suffix=suffix, table=TableFormat(rating_values=given)).rating.tolist() == expected
    assert (
        read(
            frame,
            suffix=suffix,
            table=TableFormat(rating_values={key: float(number) for key, number in numbers.items()}),
        ).rating.tolist()
        == expected
    )


def test_values_that_are_mapped(read, error):
    frame = PLAIN.assign(rating=["Like", "dislike", "3", "like"])
    assert read(frame, table=TableFormat(rating_values="like=5, dislike=1")).rating.tolist() == [5, 1, 3, 5]
    assert read(
        PLAIN.assign(rating=[1, 2, 3, 1]), suffix="parquet", table=TableFormat(rating_values="1=5")
    ).rating.tolist() == [
        5,
        2,
        3,
        5,
    ]
    assert "must be a finite number, got 'dislike'" in error(frame, table={"rating_values": "like=5"})
    assert "rating_values: must be VALUE=NUMBER" in error(frame, table={"rating_values": "like"})
    assert "rating_values: must be VALUE=NUMBER" in error(frame, table={"rating_values": "like=good"})


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("values", "missing", "kept"),
    [
        ([4, -1, 99, 3], "-1,99", [4, 3]),
        ([4, -1.0, 99, 3], [-1, 99.0], [4, 3]),
        ([4, None, 99, 3], ",99", [4, 3]),
        ([4, None, 3, 2], "", [4, 3, 2]),
        (["4", "NA", "?", "3"], "na,?", [4, 3]),
        (["4", "NA", "-1.0", "3"], ["NA", -1], [4, 3]),
    ],
)
def test_rows_that_are_not_rated_are_left_out(read, values, missing, kept, suffix):
    table = read(PLAIN.assign(rating=values), suffix=suffix, table=TableFormat(missing=missing))
    assert table.rating.tolist() == kept
    assert len(table.user.values) == len(table.item.values) == len(kept)


def test_numbers_that_are_no_days_are_seconds(read):
    times = [20000730, 20000731, 20000732, 20001301]
    assert read(PLAIN.assign(timestamp=times)).timestamp.tolist() == times


def test_ids_of_a_frame_that_was_written_with_decimal_commas(read):
    frame = PLAIN.assign(user=["1,0", "2,0", "3,0", "4,0"], rating=["4,0", "3,5", "5,0", "0,5"])
    table = read(frame, sep=";")
    assert (table.user.values.tolist(), table.rating.tolist()) == ([1, 2, 3, 4], [4, 3.5, 5, 0.5])
    assert read(PLAIN.assign(user=["1,000", "2,000", "3", "4"]), sep=";").user.values.tolist() == [
        "1,000",
        "2,000",
        "3",
        "4",
    ]


def test_ways_out_of_missing_ratings_are_named(error):
    assert "--data.table.missing ''" in error(PLAIN.assign(rating=[1, None, 2, 3]))
    assert "--data.table.missing=NA" in error(PLAIN.assign(rating=["1", "NA", "2", "3"]))
    assert "must have a row that is not left out, got none of 4" in error(
        PLAIN.assign(rating=7), table={"missing": "7"}
    )


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_of_weight_zero(read, error, suffix):
    frame = PLAIN.assign(hours=[1.5, 0, 2, 0])
    options = {"feedback": "implicit", "table": TableFormat(weight="hours"), "suffix": suffix}
    dropping = options | {"table": TableFormat(weight="hours", drop_zero_weights=True)}
    assert "--data.table.drop_zero_weights true" in (message := error(frame, **options))
    assert "must be above 0" in message
    table = read(frame, **dropping)
    assert (table.weight.tolist(), table.user.values.tolist()) == ([1.5, 2], [1, 3])
    assert "drop_zero" not in error(frame.assign(hours=[1, 0, -2, 1]), **options)
    message = error(frame.assign(hours=[1, 0, -2, 1]), **dropping)
    assert re.search("must be above 0, got '?-2", message)


@pytest.mark.parametrize("value", [10_000_000.5, 16_777_217, 1e30, 3e38, -20_000_001])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_ratings_that_float32_cannot_hold(error, value, suffix):
    message = error(PLAIN.assign(rating=[1, 2, 3, value]), suffix=suffix)
    assert "must be a number that float32 holds to its whole part" in message
    assert "16,777,216" in message


def test_ratings_that_float32_holds(read):
    values = [10_000_000, 16_777_216, 0.1, 1234.5678]
    assert read(PLAIN.assign(rating=values)).rating.tolist() == np.array(values, np.float32).tolist()


@pytest.mark.parametrize("bounds", ["0.5,5", " 0.5 , 5 ", "[0.5, 5]", "(0.5,5)", (0.5, 5), [0.5, 5.0]])
def test_a_rating_range_as_a_list(read, tmp_path, bounds):
    read(PLAIN)
    data = RatingsDataModule(str(tmp_path / "table.csv"), rating_range=bounds)
    assert data.rating_range == data.load_options.given_rating_range == (0.5, 5.0)
    assert data.table.rating.tolist() == [4, 3.5, 5, 0.5]


@pytest.mark.parametrize("bounds", ["0.5", "1,2,3", "a,b", "5,1", "0,inf", "0,3e38", "nan,1", (1, 2, 3)])
def test_rating_ranges_that_cannot_be(error, bounds):
    assert error(PLAIN, rating_range=bounds).startswith("rating_range: must ")


@pytest.mark.parametrize(
    "names", ["user,item,rating", " user, item ,rating", "[user, item, rating]", ["user", "item", "rating"]]
)
def test_columns_as_a_list(tmp_path, names):
    (tmp_path / "a.tsv").write_text("1\t5\t4\n2\t6\t3\n")
    assert RatingsDataModule(str(tmp_path / "a.tsv"), table=TableFormat(column_names=names)).table.rating.tolist() == [
        4,
        3,
    ]


def test_frames_take_the_same_options():
    frame = PLAIN.assign(rating=["like", "NA", "dislike", "3,5"], timestamp=["01/02/2000"] * 4)
    options = TableFormat(rating_values="like=5,dislike=1", missing="NA", time_format="%d/%m/%Y")
    table = RatingsDataModule.from_frame(frame, table=options).table
    assert (table.rating.tolist(), table.timestamp.tolist()) == ([5, 1, 3.5], [949363200] * 3)


def test_options_are_part_of_what_is_cached(tmp_path, monkeypatch):
    from cflightning.data.sources import columns_cache

    monkeypatch.setattr(columns_cache, "SMALLEST", 1)
    monkeypatch.setenv("CFLIGHTNING_CACHE", str(tmp_path / "cache"))
    PLAIN.to_csv(tmp_path / "a.csv", index=False)

    def ratings(**options):
        return [RatingsDataModule(str(tmp_path / "a.csv"), **options).table.rating.tolist() for _ in range(2)]

    assert ratings() == [[4, 3.5, 5, 0.5]] * 2
    assert ratings(table=TableFormat(missing="5")) == [[4, 3.5, 0.5]] * 2
    assert ratings(table=TableFormat(rating_values={"5.0": 1})) == [[4, 3.5, 1, 0.5]] * 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data.table.missing=-1,99", "--data.table.rating_values", "like=1,dislike=0"],
        ["--data.table.decimal", ",", "--data.rating_range", "0.5,5", "--data.table.column_names", "user,item,rating"],
        ["--data.rating_range=-10,10", "--data.table.drop_zero_weights", "true"],
    ],
)
def test_options_on_the_command_line(arguments, capsys):
    from cflightning.cli.training.cli import TrainingCLI

    with pytest.raises(SystemExit) as caught:
        TrainingCLI(["fit", *arguments, "--print_config"])
    assert caught.value.code in (0, None)
    printed = capsys.readouterr().out
    for given in arguments:
        name = given.removeprefix("--data.").removeprefix("table.").partition("=")[0]
        assert name in printed or not given.startswith("--data.")
