"""Regressors from mixtures to losses, found by the entry points `mixopt.regressors`."""
