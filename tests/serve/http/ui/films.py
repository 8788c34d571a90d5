"""Synthetic films with planted factors: 360 titles in six genres."""

import numpy as np

GENRES = {  # first words, second words
    "space": (
        "Orbit Comet Saturn Nebula Gravity Signal Meteor Vacuum Eclipse Lightyear",
        "Station Drift Protocol Horizon Engine Colony",
    ),
    "noir": (
        "Harbor Velvet Smoke Alibi Midnight Marlowe Ashtray Shadow Ransom Cinder",
        "Street Affair Waltz Ledger Witness Detour",
    ),
    "family": (
        "Pumpkin Button Marmalade Teapot Rabbit Puddle Acorn Biscuit Lantern Kite",
        "Parade Brigade Holiday Castle Express Circus",
    ),
    "western": (
        "Mesa Coyote Silver Dusty Canyon Mustang Rattlesnake Prairie Copper Lonesome",
        "Ride Showdown Crossing Trail Verdict Bend",
    ),
    "romance": (
        "Sunday Lisbon Violet Letter Summer Amélie Orchard Postcard Monsoon Paper",
        "Promise Balcony Duet Garden Rain Encore",
    ),
    "horror": (
        "Cellar Hollow Crimson Whisper Marrow Attic Raven Fever Mirror Salt",
        "Guest Lullaby Curse Orphan Tide Hour",
    ),
}
DIM = 6


def make_films(seed=7):
    """Titles [n], counts int64 [n], vectors float64 [n, DIM] and biases [n]; six clusters, some films between two."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    titles, vectors = [], []
    for genre, (firsts, seconds) in enumerate(GENRES.values()):
        for first in firsts.split():
            for second in seconds.split():
                year = int(rng.integers(1946, 2024))
                name = f"{first} {second}, The" if rng.random() < 0.25 else f"{first} {second}"
                titles.append(f"{name} ({year})")
                other = centres[rng.integers(DIM)] * (rng.random() < 0.3)
                vectors.append(centres[genre] * rng.uniform(0.5, 1.3) + 0.5 * other + rng.normal(0, 0.16, DIM))
    counts = np.sort(rng.pareto(1.2, len(titles)) * 40 + 3).astype(np.int64)[rng.permutation(len(titles))]
    biases = 0.25 * np.log(counts / counts.mean()) + rng.normal(0, 0.25, len(titles))
    return titles, counts, np.array(vectors), biases
