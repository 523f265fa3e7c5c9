"""Writes tests/fixtures/agreement.json: rank correlations of small lists, with and without ties, by scipy.

    python tests/scripts/agreement.py   # numpy, scipy
"""
import json
import math
import pathlib

import numpy
from scipy.stats import kendalltau, spearmanr

rng = numpy.random.default_rng(5)
cases = []
for n in [2, 3, 5, 10, 64]:
    for levels in [2, 4, 0]:
        for _ in range(2):
            a, b = rng.normal(size=n), rng.normal(size=n)
            b = b + a * rng.choice([-1.0, 0.0, 1.0])
            if levels:
                a, b = numpy.round(a * levels / 2), numpy.round(b * levels / 2)
            cases.append((a, b))
cases.append((numpy.ones(4), numpy.arange(4.0)))


def number(value):
    return None if math.isnan(value) else float(value)


out = []
for a, b in cases:
    a, b = [round(float(v), 6) + 0.0 for v in a], [round(float(v), 6) + 0.0 for v in b]
    out.append({"a": a, "b": b, "tau": number(kendalltau(a, b).statistic), "spearman": number(spearmanr(a, b).statistic)})
path = pathlib.Path(__file__).parent.parent / "fixtures" / "agreement.json"
path.write_text("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]\n")
