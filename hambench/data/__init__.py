"""Molecules on disk and in batches: the store, tasks and their splits, generation."""
