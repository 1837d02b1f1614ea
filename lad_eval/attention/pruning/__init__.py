"""Pruning of visual tokens: the least attended leave the decoder before a layer, and all later layers go on without them.

To add a pruner: a frozen dataclass derived from `pruner.Pruner` that gives scores, and a line in `INTERVENTIONS`.

pruner.py         what all pruners share: parameters, how many tokens stay, and which
fastv.py          by the attention of the prompt's last token
random_tokens.py  by chance: the control
stages.py         the layers before which tokens leave, and what is known of them there
steps.py          what continues pruned prompts
compaction.py     layers that see the remaining tokens alone
masking.py        layers that see all tokens and attend to the remaining ones: the reference
rows.py           attention of chosen query tokens
"""
