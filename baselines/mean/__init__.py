"""The mean of the training labels, as far as rotations leave it."""
