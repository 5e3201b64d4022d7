"""What lies behind the schedule and the sampler: shares, splits, permutations, state."""
