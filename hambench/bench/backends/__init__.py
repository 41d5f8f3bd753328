"""Tensor products by several libraries, behind one interface."""
