"""Reading and changing a decoder's attention.

hooks.py        observing attention calls, changing their masks, running around them
support.py      whether a model has what evidence needs
rows.py         attention weights of single query tokens
recorder.py     the last query row, summed over each image's tokens
spans.py        which tokens of a prompt belong to which image
layout.py       the parts of a batch of prompts, for interventions
masks.py        attention masks written out entry by entry
interventions/  changes of a model's forward pass, by name
"""
