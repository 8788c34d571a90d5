"""Loaders: batches of ratings, and of interactions with negative samples."""
