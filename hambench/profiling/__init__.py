"""What a piece of work on tensors does: its products of matrices, its memory, its kernels."""
