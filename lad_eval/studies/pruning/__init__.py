"""What pruning visual tokens costs and saves, and what taking the trend out of the ranking recovers (arXiv 2508.17807)."""
