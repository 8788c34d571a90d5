"""Measure one recipe of a library in this process; the last line of the output is JSON.

    python -m peers.run PEER SPLIT.npz --recipe 0 [--target .93] [--threads 2] [--repeats 3]

A runner is a module with RECIPES, DISTRIBUTIONS, `load(split, threads)` (imports, data structures of the library, and
a first fit of a few rows for compilation), `fit(state, epochs, **options)`, which is timed, and
`predict(state, model)`: the test ratings, or None.
"""

import argparse
import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from peers import common


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer")
    parser.add_argument("split", type=Path)
    parser.add_argument("--recipe", type=int, default=0)
    parser.add_argument("--target", type=float)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    runner = import_module(f"peers.{options.peer}")
    recipe = runner.RECIPES[options.recipe]
    split = common.read_split(options.split)
    state = runner.load(split, options.threads)

    def error(model: object) -> float | None:
        predicted = runner.predict(state, model)
        return None if predicted is None else common.rmse(predicted, split.test.rating, split.scale)

    found = common.measure(
        lambda epochs: runner.fit(state, epochs, **recipe.options),
        error,
        epochs=recipe.epochs,
        target=options.target,
        repeats=options.repeats,
    )
    found["versions"] = {name: version(name) for name in runner.DISTRIBUTIONS}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
