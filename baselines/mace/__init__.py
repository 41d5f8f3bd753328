"""MACE, trained by its own code in an environment of its own."""
