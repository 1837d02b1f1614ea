"""Looking inside a decoder.

tap.py       being called whenever a decoder layer attends, whatever the attention implementation
recorder.py  the last query row, summed over each image's tokens
spans.py     which tokens of a prompt belong to which image
support.py   whether a model can give all this, asked before any data is read
"""
