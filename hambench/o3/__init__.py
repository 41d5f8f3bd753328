"""Building blocks of SO(3) and SO(2) equivariant networks, shared by the models."""
