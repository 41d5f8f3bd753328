"""UMA and eSEN checkpoints of fairchem, evaluated in an environment of their own."""
