"""The command `kfold`: cross-validation over folds and seeds."""
