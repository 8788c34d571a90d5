"""The command `tune`: a search, with Optuna, for the settings with the best validation metric."""
