"""Write the split of a protocol: `python -m peers.split DATA ml-1m OUT.npz`."""

import sys
from pathlib import Path

import numpy as np


def read(path: Path, separator: str) -> np.ndarray:
    """User, item and rating of every line, in the file's order."""
    text = path.read_text(encoding="latin-1").replace(separator, " ")
    return np.array(text.split(), np.int64).reshape(-1, 4)[:, :3]


def split(data: Path, protocol: str) -> tuple[np.ndarray, np.ndarray]:
    """Training and test rows."""
    if protocol == "u1":
        return read(data / "ml-100k" / "u1.base", "\t"), read(data / "ml-100k" / "u1.test", "\t")
    rows = read(data / "ml-1m" / "ratings.dat", "::")
    order = np.random.default_rng(42).permutation(len(rows))
    cut = int(len(rows) * 0.1)
    return rows[order[cut:]], rows[order[:cut]]


def main() -> None:
    data, protocol, out = sys.argv[1:]
    train, test = split(Path(data), protocol)
    columns: dict[str, np.ndarray | int] = {}
    for column, (name, size) in enumerate((("user", "users"), ("item", "items"))):
        ids, numbers = np.unique(np.concatenate((train[:, column], test[:, column])), return_inverse=True)
        columns[f"train_{name}"], columns[f"test_{name}"] = np.split(numbers.astype(np.int32), [len(train)])
        columns[size] = len(ids)
    columns |= {"train_rating": train[:, 2].astype(np.float32), "test_rating": test[:, 2].astype(np.float32)}
    np.savez(out, **columns)


if __name__ == "__main__":
    main()
