"""Reading and changing a decoder's attention.

hooks.py        observe attention calls, change their masks, wrap them
support.py      whether a model has what evidence needs
rows.py         attention weights of single query tokens
recorder.py     the last query row, summed over each image's tokens
spans.py        which tokens of a prompt belong to which image
layout.py       the parts of a batch of prompts, for interventions
layer_hooks.py  hooks on whole decoder layers
keys.py         keys of chosen tokens, before and after rotary positions
masks.py        attention masks written out entry by entry
interventions/  changes of a model's forward pass, by name
pruning/        visual tokens that leave the prompt before a decoder layer
cross_image/    attention between images: opened, closed, delimiters scaled
"""
