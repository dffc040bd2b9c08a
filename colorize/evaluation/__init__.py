"""How good a model is on a data set: a Ray Data job that scores every picture once, beside the baselines, and what else is asked for.

Beside the scores of `colorize.model.metrics`: what hints gain, how much the confidence is worth, whether colours hold at other sizes, and
whether a classifier recognises what is on the coloured pictures.
"""

from colorize.evaluation.job import BASELINES, Evaluation, evaluate
from colorize.evaluation.recognition import classifier_for
from colorize.evaluation.scorer import Extras, predict_full_size
from colorize.evaluation.sheet import examples, sheet_png

__all__ = ["BASELINES", "Evaluation", "Extras", "classifier_for", "evaluate", "examples", "predict_full_size", "sheet_png"]
