"""Hydra configs of the harness; those of tasks and models stand beside their code."""
