"""Write the split of a protocol: `python -m peers.split DATA ml-1m OUT.npz`."""

import sys
from pathlib import Path

import numpy as np
from peers.common import Part
from peers.protocols import PROTOCOLS, Protocol


def read(path: Path, protocol: Protocol) -> Part:
    """Read user id, item id and rating of every line, in the order of the file."""
    cells = path.read_text(encoding="latin-1").replace(protocol.separator, " ").split()[4 * protocol.header :]
    user, item, rating = cells[::4], cells[1::4], cells[2::4]
    return Part(np.array(user, np.int64), np.array(item, str if protocol.names else np.int64), np.array(rating, float))


def split(data: Path, protocol: Protocol) -> tuple[Part, Part]:
    """Return training and test rows."""
    first, *second = (read(data / protocol.folder / file, protocol) for file in protocol.files)
    if second:
        return first, second[0]
    n = len(first.rating)
    order = np.random.default_rng(42).permutation(n)
    cut = int(n * 0.1)
    return Part(*(column[order[cut:]] for column in first)), Part(*(column[order[:cut]] for column in first))


def main() -> None:
    data, name, out = sys.argv[1:]
    protocol = PROTOCOLS[name]
    train, test = split(Path(data), protocol)
    if len(train.rating) != protocol.ratings:
        raise ValueError(f"{name}: {protocol.ratings:,} training rows are expected, got {len(train.rating):,}")
    columns: dict[str, object] = {"scale": np.array(protocol.scale, float)}
    for column, size in (("user", "users"), ("item", "items")):
        both = np.concatenate((getattr(train, column), getattr(test, column)))
        ids, numbers = np.unique(both, return_inverse=True)
        columns[f"train_{column}"], columns[f"test_{column}"] = np.split(numbers.astype(np.int32), [len(train.rating)])
        columns[size] = len(ids)
    columns |= {"train_rating": train.rating.astype(np.float32), "test_rating": test.rating.astype(np.float32)}
    np.savez(out, **columns)


if __name__ == "__main__":
    main()
