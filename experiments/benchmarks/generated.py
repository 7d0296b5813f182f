"""Training runs of CLLM4Rec on generated histories, with any number of users and items."""

from collections.abc import Callable

import numpy as np
from accelerate import Accelerator

from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions
from cllm4rec.corpora.prompts import OF_CLLM4REC, training_texts
from cllm4rec.corpora.tokenizer import ExtendedTokenizer
from cllm4rec.data.interactions import Interactions
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.net import CLLM4RecNet
from cllm4rec.models.language.loading import build_backbone
from cllm4rec.training.batching import MicroBatches
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.hooks import NO_HOOKS
from cllm4rec.training.loop import TrainingRun
from experiments.benchmarks.steps import loop_steps

HISTORY_LENGTH = 20
BATCH_SIZE, N_BATCHES = 64, 8  # users of a batch; batches


def collaborative_run(
    config: CLLM4RecConfig, n_users: int, n_items: int, initialise: Callable[[CLLM4RecNet], None]
) -> tuple[TrainingRun, list[MicroBatches]]:
    """A training run, and collaborative batches whose users and items are spread over all.

    Args:
        config: of the system.
        n_users: users of the tables; 512 of them have a history.
        n_items: items of the tables.
        initialise: fills the ID tables of the new network, which are empty.
    """
    backbone, words = build_backbone(config, training_texts(OF_CLLM4REC, {}), 0)
    net = CLLM4RecNet(backbone, config, n_users, n_items)
    initialise(net)
    generator = np.random.default_rng(0)
    n_histories = BATCH_SIZE * N_BATCHES
    users = np.sort(generator.choice(n_users, n_histories, replace=False)).repeat(HISTORY_LENGTH)
    events = Interactions(users, generator.integers(0, n_items, len(users)), n_users, n_items)
    tokenizer = ExtendedTokenizer(words, backbone.n_text_tokens, n_users, n_items)
    corpus = CollaborativeCorpus(
        events, tokenizer, HistoryCorpusOptions(backbone.context, sampled=config.sampled)
    )
    examples = np.array_split(generator.permutation(n_histories), N_BATCHES)
    batches: list[MicroBatches] = [[(batch, 1.0)] for batch in corpus.batches(examples, 0, range(N_BATCHES))]
    return TrainingRun(net, TrainConfig(), Accelerator(cpu=True), None), batches


def train_epochs(run: TrainingRun, batches: list[MicroBatches]) -> None:
    """Two epochs: the steps, all rows brought up to date, the best weights kept."""
    for _ in range(2):
        loop_steps(run, "collaborative", batches)
        run.optimizer.apply_missed_steps()
        run.keep_best_weights(NO_HOOKS)
        run.net.diagnostics()
