"""What pruning visual tokens costs and saves, and what taking the trend out of the ranking recovers (arXiv 2508.17807).

requirement.py   the run: one task, calibrated on enough samples for a trend
conditions.py    its conditions: shares of the visual tokens, rankings, decisions; pruners by name
measurements.py  what is measured beyond the run: the trend of each layer, the cost of a pass
flops.py         arithmetic and cache of a prompt, counted from the tokens that reach each layer
data.py          run and measurements, read back
tables.py, figures.py, reported.py  the documents
run.py           the study from beginning to end
"""
