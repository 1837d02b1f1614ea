"""Speed and memory, as ratios within one run: `python -m benchmarks`.

One file a benchmark. Variants take turns (A B A B ...), so that whatever else the machine does strikes all of them alike.
"""
