"""PhiSNet: Hamiltonians from angular features of atoms and pairs."""
