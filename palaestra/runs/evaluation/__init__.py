"""Evaluation of agents on suites: fresh environments, every episode kept, honest intervals."""

from palaestra.runs.evaluation.evaluate import baseline, evaluate, fixed
from palaestra.runs.evaluation.results import Evaluation
from palaestra.runs.evaluation.table import print_comparison

__all__ = ["Evaluation", "baseline", "evaluate", "fixed", "print_comparison"]
