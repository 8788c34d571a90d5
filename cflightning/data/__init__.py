"""The way of the data: source -> table -> split -> vocabulary -> batches."""
