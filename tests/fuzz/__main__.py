"""`make fuzz`: the whole campaign, with figures; `python -m tests.fuzz --help`."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", CUDA_VISIBLE_DEVICES="")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--calls", type=int, default=1000)
    options.add_argument("--stores", type=int, default=1500)
    given = options.parse_args()
    from tests.fuzz import calls, stores
    from tests.fuzz.harness import inside, one_model

    faults = 0
    with tempfile.TemporaryDirectory(prefix="lad-fuzz-") as place, one_model():
        folder = Path(place)
        os.environ.update(LAD_EVAL_DATA=str(folder / "data"), HOME=str(folder / "home"))
        for name in ("calls", "base", "work", "home"):
            (folder / name).mkdir()
        started = time.monotonic()
        with inside(folder / "calls"):
            calls.make(folder / "calls")
            found = calls.campaign(folder / "calls", given.calls, given.seed, _say)
        _write(f"calls: {found} ({time.monotonic() - started:.0f} s)")
        faults += len(found.faults)
        started = time.monotonic()
        with inside(folder / "work"):
            if given.stores:
                stores.make(folder / "base")
                found = stores.campaign(folder / "base", folder / "work", given.stores, given.seed, _say)
                _write(f"stores: {found} ({time.monotonic() - started:.0f} s)")
                faults += len(found.faults)
    return 1 if faults else 0


def _say(line):
    _write(f"  FAULT {line}")


def _write(line):
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
