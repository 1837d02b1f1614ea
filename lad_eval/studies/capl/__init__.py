"""CAPL, arXiv 2603.07048: attention between images, opened, closed and trained on, for any supported model.

conditions.py  the rows: the model and its adapter, each plain, fused, truncated and under a rival
between.py     how much the tokens of each image attend to each other image, layer by layer
data.py        runs and measurements, read
tables.py      accuracy and bias, answers that need other images, positions of the answers, attention by layer
figures.py     the same as pictures
reported.py    the paper's figures of its own models
run.py         the whole order
"""
