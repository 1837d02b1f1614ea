"""What pruning visual tokens costs and saves, and what removing the trend from the ranking recovers (arXiv 2508.17807).

conditions.py    its conditions: shares of the visual tokens, rankings, decisions; pruners by name
measurements.py  what is measured beyond the run: the trend of each layer, the cost of a pass
flops.py         arithmetic and cache of a prompt, counted from the tokens that reach each layer
data.py          the run and the measurements, as they are read back
tables.py, figures.py, reported.py  the documents
run.py           the whole study
"""
