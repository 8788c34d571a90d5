"""Gibbs sampling of a rating model's posterior, whose average predicts better than any point estimate."""
