"""Assembly of batches of users' histories, in tokens per second without padding.

    python -m experiments.benchmarks.batches --output bench

Data: Amazon Beauty, as `experiments.recipes` writes it (--datasets).

Prints the rate of the collaborative and of the recommendation corpus. Comparators: the same prompts as text
with ID tokens, encoded by a fast tokenizer; and a plain Python loop over cached token numbers. All three
shuffle each history, mask half of it for the recommendation prompt, pad, and give tensors.
"""

import copy
import os
import random
from collections.abc import Callable
from itertools import count

import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedTokenizerFast

from cllm4rec.corpora.base import Batch
from cllm4rec.corpora.histories import CollaborativeCorpus, HistoryCorpusOptions, RecommendationCorpus
from cllm4rec.corpora.prompts import OF_CLLM4REC, TEMPLATES, training_texts
from cllm4rec.corpora.tokenizer import ExtendedTokenizer, train_bpe
from cllm4rec.data.dataset import Dataset
from cllm4rec.training.batching import parts_of_batch
from cllm4rec.training.config import TrainConfig
from experiments.benchmarks.datasets import BEAUTY, read_dataset
from experiments.benchmarks.measurement import side_by_side
from experiments.benchmarks.results import Row, Settings, parse_settings, report
from experiments.commands import ends_in_one_line

OPTIONS = HistoryCorpusOptions(context=1024, mask_share=0.5, user_dropping=0.0)
BATCH_SIZE = 64
TIMED_BATCHES = 20  # of the comparators, which are slow
Collate = Callable[[np.ndarray], tuple[torch.Tensor, ...]]


def text_collate(train: Dataset, words: PreTrainedTokenizerFast) -> Collate:
    """Prompts as text, encoded by a copy of the tokenizer to which all IDs are added as tokens."""
    tokenizer = copy.deepcopy(words)
    tokenizer.add_tokens(
        [*(f"user_{i}" for i in range(train.n_users)), *(f"item_{j}" for j in range(train.n_items))]
    )
    tokenizer.pad_token = tokenizer.eos_token

    def collate(users: np.ndarray) -> tuple[torch.Tensor, ...]:
        tensors = []
        for name in ("collaborative", "recommend"):
            texts = []
            for user in users.tolist():
                items = train.interactions.history(user).tolist()
                random.shuffle(items)
                shown = items if name == "collaborative" else items[: max(1, len(items) // 2)]
                history = " ".join(f"item_{item}" for item in shown)
                texts.append(TEMPLATES[name].replace("{user}", f"user_{user}").replace("{history}", history))
            encoded = tokenizer(texts, padding=True, return_tensors="pt")
            tensors += [encoded["input_ids"], encoded["attention_mask"]]
        return tuple(tensors)

    return collate


def loop_collate(train: Dataset, tokenizer: ExtendedTokenizer) -> Collate:
    """Cached token numbers of the words, IDs by arithmetic, in plain Python: one list an example, padded."""
    has = tokenizer.encode_words(" has interacted with", after_id=True)
    will = tokenizer.encode_words(" will interact with", after_id=True)
    comma = tokenizer.encode_words(",", after_id=True)
    first_user, first_item = tokenizer.n_text_tokens, tokenizer.n_text_tokens + train.n_users

    def padded(examples: list[list[int]], value: int) -> torch.Tensor:
        width = max(map(len, examples))
        return torch.tensor([example + [value] * (width - len(example)) for example in examples])

    def collate(users: np.ndarray) -> tuple[torch.Tensor, ...]:
        collaborative: list[list[int]] = []
        collaborative_targets: list[list[int]] = []
        recommend: list[list[int]] = []
        recommend_targets: list[list[int]] = []
        for user in users.tolist():
            items = train.interactions.history(user).tolist()
            random.shuffle(items)
            token, half = first_user + user, max(1, len(items) // 2)
            collaborative.append([token, *has, *(first_item + item for item in items)])
            collaborative_targets.append(items)
            random.shuffle(items)
            history = [first_item + item for item in items[:half]]
            recommend.append([token, *has, *history, *comma, token, *will])
            recommend_targets.append(items[half:])
        prompts = (collaborative, recommend)
        tokens = [padded(examples, 0) for examples in prompts]
        masks = [padded([[1] * len(example) for example in examples], 0) for examples in prompts]
        return (*tokens, *masks, padded(collaborative_targets, -1), padded(recommend_targets, -1))

    return collate


def main(settings: Settings) -> list[Row]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core, as the corpora
    train = read_dataset(BEAUTY, settings).train
    words = train_bpe(training_texts(OF_CLLM4REC, train.item_texts))
    tokenizer = ExtendedTokenizer(words, len(words), train.n_users, train.n_items)
    corpora = [
        corpus(train.interactions, tokenizer, OPTIONS)
        for corpus in (CollaborativeCorpus, RecommendationCorpus)
    ]
    lengths, config = corpora[0].lengths, TrainConfig(batch_size=BATCH_SIZE)
    examples, process = corpora[0].selection(0), Accelerator(cpu=True)
    batches = [
        part
        for start in range(0, len(examples), BATCH_SIZE)
        for part in parts_of_batch(examples[start : start + BATCH_SIZE], lengths, config, process, None)
    ]
    chosen = np.random.default_rng(0).permutation(len(batches))[:TIMED_BATCHES]
    few = [batches[number] for number in chosen]
    epochs = count()  # a new epoch in each call: what is drawn once an epoch is part of the time

    def assemble() -> list[Batch]:
        epoch = next(epochs)
        return [batch for corpus in corpora for batch in corpus.batches(batches, epoch, range(len(batches)))]

    def repeated(collate: Collate) -> Callable[[], object]:
        return lambda: [collate(corpora[0].users[batch]) for batch in few]

    functions = {
        "corpora": assemble,
        "text": repeated(text_collate(train, words)),
        "loop": repeated(loop_collate(train, tokenizer)),
    }
    n_tokens = sum(batch.n_tokens for batch in assemble())
    n_few = sum(corpus.batch(batch, 0).n_tokens for batch in few for corpus in corpora)
    times = side_by_side(functions, 9)
    rates = {name: (n_tokens if name == "corpora" else n_few) / seconds for name, seconds in times.items()}
    shown = {name: f"{rate / 1e6:.2f} M tokens/s" for name, rate in rates.items()}
    prefix, measured = "batches put together, beauty", shown["corpora"]
    rows = [
        Row(f"{prefix}: against text", measured, shown["text"], rates["corpora"] / rates["text"], 50, False),
        Row(
            f"{prefix}: against a plain loop",
            measured,
            shown["loop"],
            rates["corpora"] / rates["loop"],
            3,
            False,
        ),
        Row(f"{prefix}: M tokens/s a core", measured, "", rates["corpora"] / 1e6, 3, False),
    ]
    return report("batches", rows, settings)


if __name__ == "__main__":
    with ends_in_one_line():
        main(parse_settings(__doc__))
