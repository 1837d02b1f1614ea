"""Pruning of visual tokens: the least attended leave the decoder before a layer; all later layers run without them.

To add a pruner: a frozen dataclass derived from `debiased.DebiasedPruner` that gives scores, and a line in `INTERVENTIONS`.

pruner.py         the base class of pruners: parameters, how many tokens are kept, and which
options.py        values of parameters that several files use
keep.py           the highest scores of each group
debiased.py       pruners that rank by attention, and the trend that can be divided out of it
fastv.py          by the attention of the prompt's last token
pyramiddrop.py    by the attention of the instruction's last token, in three stages
sparsevlm.py      by the attention of the text related to the images, in three stages
himap.py          by the attention of the text, then of the images
tokencarve.py     by attention and information
random_tokens.py  at random: the control
decoder.py        checks that tokens can leave before a decoder's layers
stages.py         lets tokens leave before decoder layers
steps.py          continuation of pruned prompts: generation, and prefixes of answers
compaction.py     layers that run on the remaining tokens only
scores.py         what pruners rank tokens by
schedule.py       how many tokens are kept at each of several layers
merging.py        merges dropped tokens into others
trend.py          the trend of scores over a token's index
"""
