"""Whether visual keys lie outside the distribution of text keys, and whether that matters (arXiv 2510.26721 v1).

tokens.py       which tokens are compared
capture.py      keys of a task's prompts and their scores under the last query, stored shard by shard
distances.py    MMD^2 from block sums, Jensen-Shannon divergence, a linear probe
permutation.py  whether a gap is larger than chance, by exchanging whole samples
measure.py      all numbers of one layer
measurements.py what is measured of a model, stored in a file each
collect.py      the model, its untrained control, and what was measured of each
tables.py, figures.py, run.py
"""
