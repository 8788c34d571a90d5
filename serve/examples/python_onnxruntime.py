"""Inference from a bundle with onnxruntime and numpy only, as a template for services.

Example: ``python python_onnxruntime.py BUNDLE --user 42 --k 10 --rated 1193:5 661:3``
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort


class Bundle:
    """The graphs of a bundle, which take and return raw ids (``serve/BUNDLE.md``).

    Args:
        folder: folder of the bundle.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.manifest = json.loads((self.folder / "manifest.json").read_text("utf-8"))
        if self.manifest["format"] != "cflightning-bundle" or self.manifest["format_version"] > 2:
            raise SystemExit(f"{folder}: must be a bundle of format 1 or 2")
        name = self.manifest["titles"]
        self.titles = {}
        if name:
            data = (self.folder / name).read_bytes()
            self.titles = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
        self.sessions: dict[str, ort.InferenceSession] = {}

    def ids(self, kind: str, values: list[str]) -> np.ndarray:
        """Convert user or item ids to the array that graphs take: int64 [n], or object [n] of str."""
        return np.array(values, dtype=np.int64 if self.manifest["ids"][kind] == "int64" else object)

    def run(self, graph: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Run a graph; return its outputs by name."""
        if graph not in self.sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1  # servers run requests in parallel instead
            path = self.folder / self.manifest["graphs"][graph]
            self.sessions[graph] = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        session = self.sessions[graph]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))

    def to_rows(self, items: np.ndarray, scores: np.ndarray) -> list[dict[str, object]]:
        """Combine items, titles and scores; fillers, which have the score -inf, are dropped."""
        return [
            {"item": item, "title": self.titles.get(str(item)), "score": score}
            for item, score in zip(items.tolist(), scores.tolist(), strict=True)
            if score > -np.inf
        ]


def main() -> None:
    """Recommend to a user of the training data, and to a new user if the bundle supports fold-in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--user", required=True)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument(
        "--rated",
        nargs="*",
        default=[],
        metavar="ITEM:RATING",
        help="rated items, excluded for the user, and the ratings of the new user",
    )
    options = parser.parse_args()
    bundle = Bundle(options.bundle)

    pairs = [text.rpartition(":") for text in options.rated]
    rated = bundle.ids("item", [item for item, _, _ in pairs])
    ratings = np.array([rating for _, _, rating in pairs], dtype=np.float32)
    user, k = bundle.ids("user", [options.user]), np.array([options.k])

    # exclude_user has indices of `user`: 0 for every excluded item.
    top = bundle.run("recommend", user=user, k=k, exclude_user=np.zeros(len(rated), np.int64), exclude_item=rated)
    result = {"known_user": bool(top["known"][0]), "items": bundle.to_rows(top["item"][0], top["score"][0])}
    scored = bundle.run("score", user=user.repeat(len(rated)), item=rated)
    result["predicted"] = bundle.to_rows(rated, scored["score"])
    if "fold_in" in bundle.manifest["graphs"] and len(rated):
        none = rated[:0]
        new = bundle.run("fold_in", item=rated, rating=ratings, k=k, exclude_item=none, score_item=none)
        result["new_user"] = bundle.to_rows(new["best"], new["score"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
