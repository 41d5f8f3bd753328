"""Use of trained models of Hamiltonians: predictions for any molecules, guesses for an SCF."""
