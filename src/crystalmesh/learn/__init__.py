"""Training, prediction and evaluation: the same for every network."""
