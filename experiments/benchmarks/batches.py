"""Batches of users' histories, against the same prompts as text with id tokens, and against a plain loop over cached words.

All three shuffle each history, fill in the prompt of the collaborative and of the recommendation objective (half of the
history masked), pad, and give tensors. On Amazon Beauty; the unit is tokens that are no padding.
"""

import os
import random
from collections.abc import Callable
from itertools import count

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from cllm4rec.data.dataset import Dataset
from cllm4rec.text.histories import CollaborativeCorpus, HistoryOptions, RecommendationCorpus
from cllm4rec.text.prompts import OF_CLLM4REC, TEMPLATES, training_texts
from cllm4rec.text.ragged import Batch
from cllm4rec.text.tokenizer import ExtendedTokenizer, train_bpe
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import grouped_by_length
from experiments.benchmarks.common import Row, Settings, report, settings, side_by_side
from experiments.benchmarks.padding import SETS, read

OPTIONS = HistoryOptions(context=1024, mask_share=0.5, user_dropping=0.0)
Collate = Callable[[np.ndarray], tuple[torch.Tensor, ...]]


def as_text(train: Dataset, words: PreTrainedTokenizerFast) -> Collate:
    """Prompts written with id tokens as words and encoded by the fast tokenizer."""
    words.add_tokens([*(f"user_{i}" for i in range(train.n_users)), *(f"item_{j}" for j in range(train.n_items))])
    words.pad_token = words.eos_token

    def collate(users: np.ndarray) -> tuple[torch.Tensor, ...]:
        found = []
        for name in ("collaborative", "recommend"):
            texts = []
            for user in users.tolist():
                items = train.interactions.history(user).tolist()
                random.shuffle(items)
                shown = items if name == "collaborative" else items[: max(1, len(items) // 2)]
                history = " ".join(f"item_{item}" for item in shown)
                texts.append(TEMPLATES[name].replace("{user}", f"user_{user}").replace("{history}", history))
            encoded = words(texts, padding=True, return_tensors="pt")
            found += [encoded["input_ids"], encoded["attention_mask"]]
        return tuple(found)

    return collate


def by_arithmetic(train: Dataset, tokenizer: ExtendedTokenizer) -> Collate:
    """Words cached as numbers, ids placed by arithmetic, in plain Python: one list an example, padded, made a tensor."""
    has, will = (tokenizer.encode_words(text, after_id=True) for text in (" has interacted with", " will interact with"))
    comma, first_user, first_item = tokenizer.encode_words(",", True), tokenizer.n_words, tokenizer.n_words + train.n_users

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    def collate(users: np.ndarray) -> tuple[torch.Tensor, ...]:
        prompts: list[list[int]] = []
        targets: list[list[int]] = []
        asked: list[list[int]] = []
        masked: list[list[int]] = []
        for user in users.tolist():
            items = train.interactions.history(user).tolist()
            random.shuffle(items)
            own, half = first_user + user, max(1, len(items) // 2)
            prompts.append([own, *has, *(first_item + item for item in items)])
            targets.append(items)
            random.shuffle(items)
            asked.append([own, *has, *(first_item + item for item in items[:half]), *comma, own, *will])
            masked.append(items[half:])
        tables = [padded(rows, 0) for rows in (prompts, asked)]
        masks = [padded([[1] * len(row) for row in rows], 0) for rows in (prompts, asked)]
        return (*tables, *masks, padded(targets, -1), padded(masked, -1))

    return collate


def main(given: Settings) -> list[Row]:
    train = read(given, SETS[0]).train
    words = train_bpe(training_texts(OF_CLLM4REC, train.item_texts))
    tokenizer = ExtendedTokenizer(words, len(words), train.n_users, train.n_items)
    corpora = [kind(train.interactions, tokenizer, OPTIONS) for kind in (CollaborativeCorpus, RecommendationCorpus)]
    config = TrainConfig(batch_size=64)
    users = grouped_by_length(corpora[0].selection(0), corpora[0].lengths, config, 0)
    batches = [users[start : start + 64] for start in range(0, len(users), 64)]
    few = batches[:: max(1, len(batches) // 20)]  # what is slow is timed on some

    epochs = count()  # what is drawn and counted once an epoch is part of its time

    def ours() -> list[Batch]:
        epoch = next(epochs)
        return [batch for corpus in corpora for batch in corpus.batches(batches, epoch, range(len(batches)))]

    def theirs(collate: Collate) -> Callable[[], object]:
        return lambda: [collate(corpora[0].users[batch]) for batch in few]

    n_all = sum(int(batch["mask"].sum()) for batch in ours())
    n_few = sum(int(corpus.batch(batch, 0)["mask"].sum()) for batch in few for corpus in corpora)
    fast = PreTrainedTokenizerFast(tokenizer_object=train_bpe(training_texts(OF_CLLM4REC, train.item_texts)).backend_tokenizer,
                                   eos_token=words.eos_token)  # fmt: skip
    fast.add_tokens([f"user_{user}" for user in range(train.n_users)] + [f"item_{item}" for item in range(train.n_items)])
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core, as ours
    others = {"text": theirs(as_text(train, fast)), "arithmetic": theirs(by_arithmetic(train, tokenizer))}
    times = side_by_side({"ours": ours, **others}, 9)
    rate = {name: (n_all if name == "ours" else n_few) / seconds for name, seconds in times.items()}
    shown = {name: f"{value / 1e6:.2f} M tokens/s" for name, value in rate.items()}
    what = "batches put together, beauty"
    rows = [
        Row(f"{what}: against text", shown["ours"], shown["text"], rate["ours"] / rate["text"], 50, False),
        Row(f"{what}: against a plain loop", shown["ours"], shown["arithmetic"], rate["ours"] / rate["arithmetic"], 3, False),
        Row(f"{what}: M tokens/s a core", shown["ours"], "", rate["ours"] / 1e6, 3, False),
    ]
    return report("batches", rows, given)


if __name__ == "__main__":
    main(settings(__doc__))
