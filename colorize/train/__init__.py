"""Ray Train: configuration, the loop that every worker runs, checkpoints, and the run as a whole."""
