"""The same decisions through every harness: `.ci/doors` runs these, each in an environment that has the harness.

python -m tests.doors <door> <folder>    run vanilla, pride and lad through one door; native, vlmeval, lmms-eval, lm-eval, inspect
python -m tests.doors compare <folder>   hold every door's decisions to those of `lad-eval run`
"""
