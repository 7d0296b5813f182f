"""A training step of CLLM4Rec whose item vectors read the words of titles, against one whose vectors do not.

    python -m experiments.benchmarks.texts --output bench

Data: Amazon Beauty, as `experiments.recipes` writes it (--datasets).

Prints the CPU milliseconds of a step of each objective that reads item vectors.
"""

import time
from collections.abc import Callable
from functools import partial

from accelerate import Accelerator

from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import TrainingRun
from experiments.benchmarks.datasets import BEAUTY, read_dataset
from experiments.benchmarks.measurement import side_by_side
from experiments.benchmarks.plain import PlainCLLM4Rec
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.benchmarks.steps import LEARNING_RATE, PreparedSteps, loop_steps, prepared
from experiments.commands import ends_in_one_line


def row(with_texts: PreparedSteps, without: PreparedSteps, repeats: int) -> Row:
    """Steps of an objective with texts against those without."""
    config, functions = TrainConfig(learning_rate=LEARNING_RATE), dict[str, Callable[[], object]]()
    for name, form in (("with", with_texts), ("without", without)):
        run = TrainingRun(form.net, config, Accelerator(cpu=True), None)
        functions[name] = partial(loop_steps, run, form.objective, form.steps)
    times = side_by_side(functions, repeats, time.process_time)
    figures = {name: f"{seconds / len(without.steps) * 1e3:.0f} ms" for name, seconds in times.items()}
    question = f"a step of {with_texts.description}, with texts"
    ratio = times["with"] / times["without"]
    return Row(question, figures["with"], f"without {figures['without']}", ratio, 1.3, True)


def main(settings: Settings) -> list[Row]:
    train = read_dataset(BEAUTY, settings).train
    forms = [
        [
            steps
            for steps in prepared(
                settings, train, [(CLLM4Rec(CLLM4RecConfig(item_text=text)), PlainCLLM4Rec)]
            )
            if steps.objective != "content"
        ]
        for text in ("words", "none")
    ]
    repeats = 3 if settings.short else 7
    rows = [row(with_texts, without, repeats) for with_texts, without in zip(*forms, strict=True)]
    return report("texts", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
