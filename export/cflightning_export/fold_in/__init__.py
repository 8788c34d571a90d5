"""Fold-in of new users and items: prior, specification, exact solutions, and the refit of known users."""
