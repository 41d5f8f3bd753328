"""SchNOrb (Schuett et al., Nature Communications 2019, arXiv 1906.10033)."""
