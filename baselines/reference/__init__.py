"""Element energies and nothing else."""
