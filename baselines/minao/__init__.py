"""The Fock matrix of the minao guess."""
