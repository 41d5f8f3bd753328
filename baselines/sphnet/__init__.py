"""SPHNet: products along few paths, of few pairs."""
