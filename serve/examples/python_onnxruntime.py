"""Answers from a bundle with onnxruntime and numpy alone: a start for services that want no further package.

Run it: ``python python_onnxruntime.py BUNDLE --user 42 --k 10 --rated 1193:5 661:3``
"""

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort


class Bundle:
    """The graphs of a bundle; each takes and returns raw ids (``serve/BUNDLE.md``).

    Args:
        folder: of the bundle.
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

    def ids(self, side: str, values: list[str]) -> np.ndarray:
        """Ids of a side, "user" or "item", as its graphs take them: int64 [n] or object [n] of str."""
        return np.array(values, dtype=np.int64 if self.manifest["ids"][side] == "int64" else object)

    def ask(self, question: str, **feeds: np.ndarray) -> dict[str, np.ndarray]:
        """Run the graph that answers a question: input name -> array to output name -> array."""
        if question not in self.sessions:
            options = ort.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1  # a server has threads of its own
            path = self.folder / self.manifest["graphs"][question]
            self.sessions[question] = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        session = self.sessions[question]
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    def listed(self, items: np.ndarray, scores: np.ndarray) -> list[dict[str, object]]:
        """Items with their titles and scores; fillers, which score -inf, are left out."""
        return [
            {"item": item, "title": self.titles.get(str(item)), "score": score}
            for item, score in zip(items.tolist(), scores.tolist(), strict=True)
            if score > -np.inf
        ]


def main() -> None:
    """Recommend to a user of the training data, and to a new one where the bundle folds in."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--user", required=True)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument(
        "--rated", nargs="*", default=[], metavar="ITEM:RATING", help="left out for the user; all of a new one"
    )
    options = parser.parse_args()
    bundle = Bundle(options.bundle)

    pairs = [text.rpartition(":") for text in options.rated]
    rated = bundle.ids("item", [item for item, _, _ in pairs])
    ratings = np.array([rating for _, _, rating in pairs], dtype=np.float32)
    user, k = bundle.ids("user", [options.user]), np.array([options.k])

    # exclude_user holds positions in `user`, here 0 for each item.
    best = bundle.ask("recommend", user=user, k=k, exclude_user=np.zeros(len(rated), np.int64), exclude_item=rated)
    answer = {"known_user": bool(best["known"][0]), "items": bundle.listed(best["item"][0], best["score"][0])}
    scored = bundle.ask("score", user=user.repeat(len(rated)), item=rated)
    answer["predicted"] = bundle.listed(rated, scored["score"])
    if "fold_in" in bundle.manifest["graphs"] and len(rated):
        none = rated[:0]
        new = bundle.ask("fold_in", item=rated, rating=ratings, k=k, exclude_item=none, score_item=none)
        answer["new_user"] = bundle.listed(new["best"], new["score"])
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
