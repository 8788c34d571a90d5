"""Contents of a bundle beside its graphs: networks, rows of the users, item metadata, distribution of the scores."""
