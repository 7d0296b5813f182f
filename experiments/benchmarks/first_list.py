"""Loading of a run, and the list of one user: a process of the question `loading`.

    python -m experiments.benchmarks.first_list RUN THREADS

Data: a run folder whose users include "user 7".

Prints a JSON list: items of the list; MiB of private memory taken; seconds of loading the dataset, of loading
the model, and of making the list. Imports are not counted.
"""

import json
import sys
import time

import accelerate  # noqa: F401  # imported before the clock starts
import numpy as np
import torch

from cllm4rec import evaluation  # noqa: F401
from cllm4rec.commands.entry import say
from cllm4rec.models import load  # noqa: F401
from cllm4rec.models.cllm4rec import recommender as cllm4rec  # noqa: F401
from cllm4rec.training.run_folder import RunFolder
from experiments.benchmarks.measurement import process_memory


def main(run: str, threads: int) -> None:
    torch.set_num_threads(threads)
    marks = [time.perf_counter()]
    dataset = RunFolder.open(run).dataset()
    marks.append(time.perf_counter())
    before = process_memory("RssAnon")
    model = load(run)
    marks.append(time.perf_counter())
    table = model.recommend(["user 7"], 20, dataset=dataset)
    marks.append(time.perf_counter())
    say(json.dumps([len(table), process_memory("RssAnon") - before, *np.diff(marks).tolist()]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
