"""Preference learning on top of cross-image attention (CAPL, arXiv 2603.07048).

pairs.py    chosen and rejected answers, balanced over positions
answers.py  collects them from a model under fused and under truncated attention
batches.py  pairs as a trainer's batches
folder.py   the folders of answers and adapters: one process at a time, resumable
dpo.py      trains an adapter on them; needs the extra `train`
merge.py    saves the base with an adapter merged into its weights
"""
