"""Pruning of visual tokens: the least attended leave the decoder before a layer, and all later layers go on without them.

To add a pruner: a frozen dataclass derived from `debiased.DebiasedPruner` that gives scores, and a line in `INTERVENTIONS`.

pruner.py         what all pruners share: parameters, how many tokens stay, and which
options.py        values of parameters that several files need
keep.py           the highest scores of each group
debiased.py       pruners by attention, and the trend that can be taken out of it
fastv.py          by the attention of the prompt's last token
pyramiddrop.py    by the attention of the instruction's last token, in three stages
sparsevlm.py      by the attention of the text that has to do with the images, in three stages
himap.py          by the attention of the text, then of the images
tokencarve.py     by attention and information
random_tokens.py  at random: the control
decoder.py        what a decoder must be like
stages.py         the layers before which tokens leave, and what is known of them there
steps.py          what continues pruned prompts
compaction.py     layers that see the remaining tokens alone
scores.py         what pruners rank tokens by
schedule.py       how many tokens stay at each of several layers
merging.py        dropped tokens that live on inside others
trend.py          how scores change with a token's index alone
"""
