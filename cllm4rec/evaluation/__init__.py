"""One evaluation protocol for every system, by full ranking or among candidates."""

from cllm4rec.evaluation.candidates import AMONG_CANDIDATES, measure_choices
from cllm4rec.evaluation.full_ranking import PROTOCOL, measure
from cllm4rec.evaluation.intervals import bootstrap_interval
from cllm4rec.evaluation.measurement import Conditions, Difference, Measurement, differences
from cllm4rec.evaluation.slices import Slice

__all__ = [
    "AMONG_CANDIDATES",
    "PROTOCOL",
    "Conditions",
    "Difference",
    "Measurement",
    "Slice",
    "bootstrap_interval",
    "differences",
    "measure",
    "measure_choices",
]
