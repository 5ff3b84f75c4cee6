"""Named bandit tasks of the literature, as data.

Where a source gives several numbers of arms or horizons the smallest is the default; pass `K` or
`T` beside the preset for the others. Sources: "LLMs are greedy agents" (arXiv 2504.16078) for
`paper-*`, BanditBench (arXiv 2410.06238) for `banditbench-*`, Krishnamurthy et al.
(arXiv 2403.15371) for `krishnamurthy-*`.
"""

from typing import Any

_NOISE = {"low": 0.1, "medium": 1.0, "high": 3.0}
_PAPER_GAP = {"low": 0.5, "medium": 0.35, "high": 0.2}

# The text of arXiv 2504.16078 draws means from U(0, 1), K in {5, 10, 20}.
_PAPER_TEXT = {
    f"paper-text-{level}": {
        "family": "gaussian",
        "K": 5,
        "T": 50,
        "mean_prior": "uniform01",
        "prior_scale": 1.0,
        "sigma": sigma,
    }
    for level, sigma in _NOISE.items()
}

# Its regret plots exceed what U(0, 1) allows; N(0, s) has their scale.
_PAPER_FIGURE = {
    f"paper-figure-{level}": {
        "family": "gaussian",
        "K": 5,
        "T": 50,
        "mean_prior": "normal",
        "prior_scale": max(1.0, sigma),
        "sigma": sigma,
    }
    for level, sigma in _NOISE.items()
}

# The gaps are not given in the paper; these are ours.
_PAPER_BERNOULLI = {
    f"paper-bernoulli-{level}": {"family": "bernoulli", "K": 5, "T": 50, "gap": gap}
    for level, gap in _PAPER_GAP.items()
}

# BanditBench calls the noise a variance and uses it as a standard deviation; K in {5, 20},
# T = 300 in its easy half and 1000 in its hard half.
_BANDITBENCH = {
    f"banditbench-gaussian-{level}": {
        "family": "gaussian",
        "K": 5,
        "T": 300,
        "mean_prior": "normal",
        "prior_scale": s,
        "sigma": s,
    }
    for level, s in {"low": 1.0, "high": 3.0}.items()
} | {
    "banditbench-bernoulli-easy": {"family": "bernoulli", "K": 5, "T": 300, "gap": 0.5},
    "banditbench-bernoulli-hard": {"family": "bernoulli", "K": 20, "T": 1000, "gap": 0.2},
}

_KRISHNAMURTHY = {
    "krishnamurthy-easy": {"family": "bernoulli", "K": 4, "T": 100, "gap": 0.5},
    "krishnamurthy-hard": {"family": "bernoulli", "K": 5, "T": 100, "gap": 0.2},
}

BANDIT_PRESETS: dict[str, dict[str, Any]] = (
    _PAPER_TEXT
    | _PAPER_FIGURE
    | {"paper-bernoulli": _PAPER_BERNOULLI["paper-bernoulli-low"]}
    | _PAPER_BERNOULLI
    | _BANDITBENCH
    | _KRISHNAMURTHY
)
"""Preset name -> family and options; `preset=` of the bandit environments takes the names."""
