"""Interventions on attention between the images of a prompt.

masks.py              which entries of an attention mask lead from one image to another
capl.py               a second attention pass in which images attend to each other
truncated.py          no image attends to another
delimiter_scaling.py  hidden states of the tokens around images, scaled
tied.py               images that share one place
pine.py               images placed for each query by importance, the most important nearest
importance.py         how important images are for a query, and how far they are moved for it
placed.py             attention with images at these places
"""
