"""Serves the page with synthetic films, for manual tests: ``python tests/serve/http/ui/serve_films.py 8100``."""

import sys

import uvicorn
from films import make_films
from stub import StubScorer, make_app


def make_page():
    """Make the application, with ratings in half stars."""
    titles, counts, vectors, biases = make_films()
    scorer = StubScorer(range(1, len(titles) + 1), titles, counts, vectors, (0.5, 5.0))
    return make_app(scorer, biases, noise=1.0)


if __name__ == "__main__":
    uvicorn.run(make_page(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
