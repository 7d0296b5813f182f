"""Training and scoring with a frozen pretrained model, against the plainest loop on the same tokens.

    python -m experiments.benchmarks.pretrained --backbone FOLDER --data datasets/ml-100k/seed0 --output bench

Data: any causal language model, and any dataset folder whose items have titles.

Prints tokens/s without padding. Comparators: a plain loop (`plain_pretrained`) in the precision in which the
package holds the model; a bare forward of the same users' prompts; the products of the linear layers alone.
Peak memory is that of the command pretrain, stopped after some minutes.
`--cpu` compares CPU times, where other work on the machine would disturb the wall times.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from cllm4rec.corpora.history_batches import HistoryPrompts
from cllm4rec.data.dataset import Dataset
from cllm4rec.evaluation import measure
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.models.rsllm.config import RSLLMConfig
from cllm4rec.models.rsllm.recommender import RSLLM
from cllm4rec.training.allocator import keep_freed_memory
from cllm4rec.training.batching import MicroBatches, micro_batches, n_steps
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import TrainingRun
from cllm4rec.training.records import VALIDATION_METRIC
from experiments.benchmarks.measurement import side_by_side
from experiments.benchmarks.objectives import stage_objectives
from experiments.benchmarks.plain_pretrained import PlainCLLM4Rec, PlainRSLLM, load_frozen, plain_steps
from experiments.benchmarks.results import Row, Settings, report, settings_from, settings_parser
from experiments.benchmarks.scoring import K, prompts_of
from experiments.benchmarks.steps import LEARNING_RATE, loop_steps
from experiments.commands import ends_in_one_line, run_command

ITEM_OBJECTIVES = ("collaborative", "recommend")
STEPS, USERS = 4, 128  # timed together, spread over an epoch; users that are scored
BARE_USERS = 32  # of a batch of the bare forward: as fast as any on the processors that were tried


@dataclass(frozen=True)
class Case:
    """What is measured with.

    Attributes:
        backbone: folder of the model.
        dataset: folder of the dataset.
        batch_size: examples of a step.
        clock: gives seconds.
        repeats: of each function.
    """

    backbone: Path
    dataset: Path
    batch_size: int
    clock: Callable[[], float]
    repeats: int

    def system(self, name: str) -> CLLM4Rec | RSLLM:
        """A system on the frozen model."""
        if name == "rsllm":
            return RSLLM(RSLLMConfig(backbone=str(self.backbone), tune="lora"))
        config = CLLM4RecConfig(backbone=str(self.backbone), tune="frozen", start="random", item_text="none")
        return CLLM4Rec(config)

    def plain(self, system: CLLM4Rec | RSLLM) -> PlainCLLM4Rec | PlainRSLLM:
        """The plain form of a system, in the precision in which it holds the model."""
        model = load_frozen(self.backbone, system.net.backbone.model.dtype)
        if isinstance(system, RSLLM):
            return PlainRSLLM(model, *system.net.items.shape)
        return PlainCLLM4Rec(model, len(system.user_ids), len(system.item_ids))

    def times(self, functions: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Median seconds of functions that are called in turn."""
        return side_by_side(functions, self.repeats, self.clock)


def steps_of(
    case: Case, system: CLLM4Rec | RSLLM, train: Dataset, stage: str
) -> Iterator[tuple[str, list[MicroBatches]]]:
    """Some steps of each objective of a stage, at whose start it puts the system."""
    config, accelerator = TrainConfig(batch_size=case.batch_size), Accelerator(cpu=True)
    for objective in stage_objectives(system, train, stage, accelerator):
        if stage == system.stages[0] or objective.name != "content":
            n = n_steps(objective, objective.from_epoch, config)
            chosen = sorted({i * n // STEPS for i in range(STEPS)})
            steps = list(micro_batches(objective, objective.from_epoch, chosen, config, accelerator))
            yield objective.name, steps


def products(model: PreTrainedModel, n_rows: int) -> Callable[[], None]:
    """The products of the linear layers alone, for the states and their gradients, on random rows."""
    layers = [layer for layer in model.base_model.modules() if not isinstance(layer, nn.Embedding)]
    weights = [p for layer in layers for p in layer.parameters(recurse=False) if p.dim() == 2]
    widths = {width for weight in weights for width in weight.shape}
    rows = {width: torch.randn(n_rows, width).to(model.dtype) for width in widths}

    @torch.no_grad()
    def multiply() -> None:
        for weight in weights:
            rows[weight.shape[1]] @ weight.T
        for weight in reversed(weights):
            rows[weight.shape[0]] @ weight

    return multiply


def training_rows(case: Case, name: str) -> list[Row]:
    """Steps of each objective of a system against plain steps, and against products."""
    train, system, rows = Dataset.load(case.dataset).train, case.system(name), []
    for stage in system.stages:
        for objective, steps in steps_of(case, system, train, stage):
            plain: Any = case.plain(system)
            trained = [p for p in plain.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
            n_tokens = sum(batch.n_tokens for step in steps for batch, _ in step)
            n_padded = sum(batch.mask.numel() for step in steps for batch, _ in step)
            config = TrainConfig(learning_rate=LEARNING_RATE, batch_size=case.batch_size)
            with TrainingRun(system.net, config, Accelerator(cpu=True), None) as run:
                times = case.times(
                    {
                        "loop": partial(loop_steps, run, objective, steps),
                        "plain": partial(plain_steps, plain, objective, steps, optimizer),
                        "products": products(load_frozen(case.backbone, plain.model.dtype), n_tokens),
                    }
                )
            rates = {form: f"{n_tokens / seconds:,.0f} tokens/s" for form, seconds in times.items()}
            details = {"padding": 1 - n_tokens / n_padded, "tokens of a step": n_tokens / len(steps)}
            step = f"a step of {objective}, {name}"
            ratio, share = times["loop"] / times["plain"], times["products"] / times["loop"]
            rows.append(Row(step, rates["loop"], f"plain {rates['plain']}", ratio, 1.1, True, details))
            if objective in ITEM_OBJECTIVES:  # in the others the softmax over words is much of the work
                comparator = f"products {rates['products']}"
                rows.append(Row(f"{step}: share of products", rates["loop"], comparator, share, 0.6, False))
    return rows


def scoring_rows(case: Case) -> list[Row]:
    """Lists and validation of some users against the bare forward of their prompts."""
    dataset, model = Dataset.load(case.dataset), case.system("cllm4rec")
    assert isinstance(model, CLLM4Rec)
    for stage in model.stages:
        stage_objectives(model, dataset.train, stage)
    plain, rows = case.plain(model), []
    assert isinstance(plain, PlainCLLM4Rec)
    held_out, seen = (np.diff(part.interactions.indptr) for part in (dataset.validation, dataset.seen))
    users = np.flatnonzero((held_out > 0) & (seen > 0))
    users = users[:: max(1, len(users) // USERS)]
    batches = bare_batches(model, users, dataset.seen)
    n_tokens = sum(int(batch.mask.sum()) for batch in batches)
    questions: dict[str, Callable[[], object]] = {
        "lists": lambda: list(model.rank_batches(users, dataset.seen, K)),
        "validation": partial(
            measure, model, dataset, "validation", metrics=[VALIDATION_METRIC], users=users
        ),
    }
    for question, function in questions.items():
        times = case.times({"ours": function, "bare": partial(plain.item_scores, batches)})
        rates = {form: f"{n_tokens / seconds:,.0f} tokens/s" for form, seconds in times.items()}
        ratio = times["ours"] / times["bare"]
        rows.append(
            Row(
                f"{question} of {len(users)} users", rates["ours"], f"bare {rates['bare']}", ratio, 1.15, True
            )
        )
    return rows


def bare_batches(model: CLLM4Rec, users: np.ndarray, seen: Dataset) -> list[HistoryPrompts]:
    """The prompts of users, sorted by length."""
    order = np.argsort(seen.interactions.histories(users).lengths, kind="stable")
    groups = [users[order[begin : begin + BARE_USERS]] for begin in range(0, len(users), BARE_USERS)]
    return [prompts_of(model, group, seen) for group in groups]


def memory_row(case: Case, name: str, settings: Settings) -> Row:
    """Peak memory of the command pretrain, with its default batches."""
    minutes = 2 if settings.short else 10
    with TemporaryDirectory() as folder:
        places = ["--dataset", case.dataset, "--output", Path(folder) / "run", "--backbone", case.backbone]
        cost = run_command("pretrain", "--system", name, *places, "--max-minutes", minutes)
    gib = cost.peak_mib / 1024
    return Row(f"peak memory of {minutes} minutes of pretrain, {name}", f"{gib:.2f} GiB", "", gib, 4, True)


def main(case: Case, settings: Settings, parts: list[str]) -> list[Row]:
    rows: list[Row] = []
    keep_freed_memory()  # as the commands do
    for part in parts:
        rows += scoring_rows(case) if part == "scoring" else training_rows(case, part)
        if part != "scoring":
            rows.append(memory_row(case, part, settings))
    return report("pretrained", rows, settings)


if __name__ == "__main__":
    parser, all_parts = settings_parser(__doc__), ["cllm4rec", "rsllm", "scoring"]
    parser.add_argument("--backbone", type=Path, required=True, help="folder of a causal language model")
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--batch-size", type=int, default=8, help="examples a step (default: %(default)s)")
    parser.add_argument("--cpu", action="store_true", help="compare CPU times instead of wall times")
    parser.add_argument("--parts", nargs="+", default=all_parts, choices=all_parts, help="what is measured")
    arguments = parser.parse_args()
    settings = settings_from(arguments)
    clock = time.process_time if arguments.cpu else time.perf_counter
    repeats = 3 if settings.short else 7
    case = Case(arguments.backbone, arguments.data, arguments.batch_size, clock, repeats)
    with ends_in_one_line():
        main(case, settings, arguments.parts)
