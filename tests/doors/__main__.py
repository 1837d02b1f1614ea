"""The same decisions through every harness: `.ci/doors` runs these, each in an environment that has the harness.

python tests/doors <door> <folder>    run vanilla, pride and lad through one door; native, vlmeval, lmms-eval, lm-eval, inspect
python tests/doors compare <folder>   hold every door's decisions to those of `lad-eval run`

A folder that is run, not a module: environments of other harnesses have packages named `tests`.
"""

import json
import sys
from pathlib import Path

from runs import DOORS, METHODS, record

LIMIT = 25  # of each of four tasks


def compare(folder):
    """A table of the doors, how many decisions differ from those of `lad-eval run`; the number of faults found."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}
    expected = found.pop("native")["decisions"]
    faults = 0
    sys.stdout.write(
        f"{'door':12}" + "".join(f"{method:>18}" for method in METHODS) + "   decisions that differ from lad-eval run's\n"
    )
    for door, held in found.items():
        cells = []
        for method in METHODS:
            theirs, ours = held["decisions"][method], expected[method]
            different = len(theirs.keys() ^ ours.keys()) + sum(theirs[key] != ours[key] for key in theirs.keys() & ours.keys())
            cells.append(f"{different} of {len(ours)}")
            faults += different
        sys.stdout.write(f"{door:12}" + "".join(f"{cell:>18}" for cell in cells) + "\n")
    with_errors = {door: held["stderr"] for door, held in found.items() if held["stderr"]}
    if len(with_errors) > 1:
        first, *others = with_errors.values()
        unequal = sum(abs(first[name] - other[name]) > 1e-9 for other in others for name in first)
        sys.stdout.write(f"standard errors that differ between {' and '.join(with_errors)}: {unequal} of {len(first)}\n")
        faults += unequal
    return faults


def main(arguments):
    if len(arguments) == 2 and arguments[0] == "compare":
        return 1 if compare(arguments[1]) else 0
    if len(arguments) in (2, 3) and arguments[0] in DOORS:
        record(arguments[0], arguments[1], int(arguments[2]) if len(arguments) == 3 else LIMIT)
        return 0
    sys.stderr.write(f"usage: python tests/doors {{{','.join(DOORS)},compare}} <folder> [samples of a task]\n")
    return 2


sys.exit(main(sys.argv[1:]))
