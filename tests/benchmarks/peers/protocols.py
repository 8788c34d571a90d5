"""The protocols: data sets, splits, and the options of cflightning for them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """A data set and its split.

    Attributes:
        name: value of `--data`.
        text: description in the table.
        folder: folder of the data set.
        files: files of training and test part, or one file whose first tenth in the order of
            ``default_rng(42).permutation(n)`` is the test part, the default split of cflightning.
        separator: separator of user, item, rating and time.
        scale: lowest and highest rating.
        ratings: training rows.
        target: test RMSE of the time-to-target measurement.
        header: whether the file has a header line.
        names: whether item ids are strings, so that 0104257 differs from 104257.
        config: config of cflightning beside the path: a file of configs/.
    """

    name: str
    text: str
    folder: str
    files: tuple[str, ...]
    separator: str
    scale: tuple[float, float]
    ratings: int
    target: float
    header: bool = False
    names: bool = False
    config: str | None = None


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="u1",
            text="MovieLens 100K, u1 (80,000 train, 20,000 test)",
            folder="ml-100k",
            files=("u1.base", "u1.test"),
            separator="\t",
            scale=(1, 5),
            ratings=80_000,
            target=0.93,
            config="ml-100k.yaml",
        ),
        Protocol(
            name="ml-1m",
            text="MovieLens 1M, random 90/10 (900,189 train, 100,020 test)",
            folder="ml-1m",
            files=("ratings.dat",),
            separator="::",
            scale=(1, 5),
            ratings=900_189,
            target=0.8465,
        ),
        Protocol(
            name="small",
            text="MovieLens Latest Small, random 90/10 (90,753 train, 10,083 test)",
            folder="ml-latest-small",
            files=("ratings.csv",),
            separator=",",
            scale=(0.5, 5),
            ratings=90_753,
            target=0.85,
            header=True,
        ),
        Protocol(
            name="movietweetings",
            text="MovieTweetings 100K, random 90/10 (90,000 train, 10,000 test)",
            folder="movietweetings-100k",
            files=("ratings.dat",),
            separator="::",
            scale=(0, 10),
            ratings=90_000,
            target=1.54,
            names=True,
        ),
    )
}
