"""Preference learning on top of cross-image attention (CAPL, arXiv 2603.07048).

pairs.py    chosen and rejected answers, balanced over positions
answers.py  collects them from a model under fused and under truncated attention
batches.py  pairs as a trainer's batches
dpo.py      trains an adapter on them; needs the extra `train`
"""
