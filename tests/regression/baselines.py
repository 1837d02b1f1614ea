"""What the tests of baselines share."""

import json

from lad_eval.regression.check import CheckOptions

QUIET = CheckOptions(model="lad-tiny", quiet=True)


METHODS = ("vanilla", "lad")


TASK = """
source: scenes
version: {version}
setting: random
candidates: 4
samples: 8
identifiers: {identifiers}
data: {{seed: {seed}, calibration_samples: 5}}
"""


def define(path, *, version=1, identifiers="1..", seed=0):
    path.write_text(TASK.format(version=version, identifiers=identifiers, seed=seed))
    return path


def change(path, how):
    document = json.loads(path.read_text())
    how(document)
    path.write_text(json.dumps(document))


def figure(result, method, name):
    """A method's change of one figure."""
    (found,) = [change for compared, change in result.changes if (compared.method, change.figure) == (method, name)]
    return found


def kinds(result):
    return {(finding.kind, finding.method) for finding in result.findings}
