"""What a bundle holds beside its graphs: item metadata, seen items, score reference, training data."""
