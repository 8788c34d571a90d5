"""Serves the page over made-up films, to look at it: ``python tests/serve/page/serve_films.py 8100``."""

import sys

import uvicorn
from films import make_films
from stub import StubScorer, make_app

if __name__ == "__main__":
    titles, counts, vectors, biases = make_films()
    scorer = StubScorer(range(1, len(titles) + 1), titles, counts, vectors, (0.5, 5.0))
    uvicorn.run(make_app(scorer, biases), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
