"""Helpers that know nothing of recommenders: files, locks, threads, processes, sparse matrices."""
