"""Interventions that open or close what images of a prompt can learn from each other.

masks.py              which entries of an attention mask lead from one image to another
capl.py               a second attention pass in which images see each other
truncated.py          no image sees another
delimiter_scaling.py  hidden states of the tokens around images, scaled
"""
