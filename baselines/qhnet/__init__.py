"""QHNet (arXiv 2306.04922): Hamiltonians by tensor products of the features of two atoms."""
