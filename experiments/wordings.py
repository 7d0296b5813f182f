"""Wordings of RSLLM's question, by the likelihood that a language model gives to the right title.

    cllm4rec pretrain --system rsllm --dataset DATA --sequential SASREC --backbone FOLDER --prompt text \
        --output RUN

Each validation event is shown with 19 random other items. The prompts name no candidates. The answer is the
title whose tokens gain most by the history: mean log-probability with it, minus that without it.

Prints HitRatio@1 of each wording with 95 % intervals, and the first one minus each other, paired over events.
The first wording is that of the package (cllm4rec/corpora/prompts.py).
"""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np

from cllm4rec import load, measure_choices
from cllm4rec.commands.entry import say
from cllm4rec.corpora.prompts import TEMPLATES
from cllm4rec.evaluation import bootstrap_interval
from cllm4rec.models.rsllm.recommender import RSLLM
from experiments.commands import argument_parser, ends_in_one_line
from experiments.report import difference_cell, markdown_table

QUESTION = "next"
WORDINGS = (
    TEMPLATES[QUESTION],
    "{history}",
    "Someone who likes {history} will also like",
)


def hits_of(run: Path, wording: str, draws: int) -> np.ndarray:
    """HitRatio@1 of each validation event of a run's dataset (n,), with another wording of the question.

    Raises:
        SystemExit: the run is of another system than rsllm, or its prompts name candidates.
    """
    with patch.dict(TEMPLATES, {QUESTION: wording}):
        model = load(run)
        if not isinstance(model, RSLLM) or model.config.candidates:
            raise SystemExit(f"error: {run}: give a run of rsllm whose prompts name no candidates")
        data = model._source_dataset()
        choices = measure_choices(model, data, "validation", draws=draws, by="likelihood")
    return choices.per_user["hit_ratio@1"]


def main(run: Path, draws: int, wordings: Sequence[str] = WORDINGS) -> None:
    measured: list[np.ndarray] = []
    rows = []
    for wording in wordings:
        hits = hits_of(run, wording, draws)
        low, high = bootstrap_interval(hits)
        difference = difference_cell(measured[0] - hits) if measured else ""
        rows.append([wording, f"{hits.mean():.4f}", f"[{low:.4f}, {high:.4f}]", difference])
        measured.append(hits)
        say(f"{wording}: {hits.mean():.4f}")
    say(f"\n{run}, {len(measured[0]):,} validation events\n")
    say(markdown_table(["wording", "HitRatio@1", "95 % over events", "the first minus this"], rows))


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--run", type=Path, required=True, help="run folder of rsllm")
    parser.add_argument("--draws", type=int, default=1, help="candidate sets of each event (default: 1)")
    arguments = vars(parser.parse_args())
    with ends_in_one_line():
        main(**arguments)
