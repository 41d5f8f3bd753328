"""Molecules, orbitals and matrices: no learning, no files, no torch.nn."""
