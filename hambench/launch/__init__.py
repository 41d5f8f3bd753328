"""Many cells in one command: the plan of a sweep, and the launchers that run it."""
