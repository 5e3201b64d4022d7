"""Where MixtureLoader meets training frameworks; each module needs its framework."""
