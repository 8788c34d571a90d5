"""Batch inference: the recommendations for all users, written to a file in resumable parts."""
