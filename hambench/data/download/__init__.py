"""Fetching published data files: exactly, resumably, and checked against what was published."""
