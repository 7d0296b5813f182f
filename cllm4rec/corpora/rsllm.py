"""The corpora of RSLLM: a prompt with a history, answered by the title of the item that came next."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cllm4rec.corpora.base import Batch, Corpus, as_tensor
from cllm4rec.corpora.rsllm_prompts import Prompts, PromptWriter
from cllm4rec.data.audit import learns_from
from cllm4rec.data.candidates import draw_candidates
from cllm4rec.data.interactions import Interactions
from cllm4rec.data.ragged import Ragged
from cllm4rec.data.randomness import mix, permutation, uniform


@dataclass(frozen=True)
class RSLLMCorpusOptions:
    """How histories become examples.

    Attributes:
        context: most tokens of a prompt and its answer.
        length: most items of a history.
        candidates: items that a prompt names, the target among them; 0: none.
        negatives: items that each step is contrasted with, a sample.
        seed: of all random numbers.
    """

    context: int
    length: int
    candidates: int = 0
    negatives: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class AnswerBatch(Batch):
    """Stage 1: prompts in which each token of the answer is predicted from the tokens before it.

    Attributes:
        tokens: int64 (B, L).
        mask: bool (B, L), True at tokens.
        state_index: int64 (T,), flat index of the token before each answer token, whose state predicts it.
        target_tokens: int64 (T,), the answer tokens: titles and end tokens.

    Example: the history of items with the titles `Blue Chair` (50 51) and `Lamp` (52), answered by `Door`
    (53); the instruction is 10 11, the question 12 13, the comma 40 and the end token 0:

        tokens        [[10, 11, 50, 51, 40, 52, 40, 12, 13, 53, 0]]
        state_index   [8, 9]
        target_tokens [53, 0]
    """

    tokens: Tensor
    state_index: Tensor
    target_tokens: Tensor

    @property
    def n_targets(self) -> int:
        return len(self.target_tokens)


@dataclass(frozen=True, kw_only=True)
class ContrastiveBatch(AnswerBatch):
    """Stage 2: the same, and the tensors of the two contrastive losses.

    Fields named local_ hold indices into `items`. R counts the items of all histories of the batch.

    Attributes:
        tokens: int64 (B, L); the soft token of the item items[m] is n_text_tokens + m.
        items: int64 (M,), item numbers that occur in the batch, ascending.
        groups: int64 (M,), equal for items that share a title.
        history_index: int64 (R,), flat index of each history item's last token; its state has seen this item
            and everything before it.
        history_rows: int64 (R,), example of each history item, ascending.
        local_history: int64 (R,), the history items.
        local_targets: int64 (R,), the item that came next after each.
        title_index: int64 (W,), flat index of each title token of the histories.
        title_rows: int64 (W,), the history item (of R) that each title token belongs to, ascending.
        local_sample: int64 (S,), items that all examples are contrasted with.
        local_hard: int64 (B, H), further items that each example is contrasted with.

    Example: the history and answer of `AnswerBatch`, of the items [7, 4] and 9. The sample is {4, 8}, the
    hard negative 2, and n_text_tokens 100:

        tokens        [[10, 11, 50, 51, 102, 52, 101, 12, 13, 53, 0]]
        state_index   [8, 9]
        target_tokens [53, 0]
        items         [2, 4, 7, 8, 9]
        history_index [4, 6]
        history_rows  [0, 0]
        local_history [2, 1]
        local_targets [1, 4]
        title_index   [2, 3, 5]
        title_rows    [0, 0, 1]
        local_sample  [1, 3]
        local_hard    [[0]]
    """

    items: Tensor
    groups: Tensor
    history_index: Tensor
    history_rows: Tensor
    local_history: Tensor
    local_targets: Tensor
    title_index: Tensor
    title_rows: Tensor
    local_sample: Tensor
    local_hard: Tensor

    @property
    def n_targets(self) -> int:
        return len(self.local_targets)


class AnswerCorpus(Corpus):
    """Stage 1, for the language-modelling loss of the answers.

    One example a user with two training items or more. Each epoch draws another item of the history, not the
    first, as the answer to the items before it.

    Args:
        train: the training events.
        writer: of the prompts.
        groups: int64 (n_items,), `title_groups` of the items.
        options: of the examples.
    """

    stream = 5
    any_answer = True  # whether short prefixes of a history are examples too

    def __init__(
        self, train: Interactions, writer: PromptWriter, groups: np.ndarray, options: RSLLMCorpusOptions
    ) -> None:
        learns_from("prompts", train)
        self.train, self.writer, self.groups, self.options = train, writer, groups, options
        self.users = np.flatnonzero(np.diff(train.indptr) > 1)
        n_tokens = writer.item_tokens.lengths[train.items]
        self._tokens_before = np.append(0, np.cumsum(n_tokens))  # (n_events + 1,) of each event
        self.lengths = self.lengths_in(0)

    def selection(self, epoch: int) -> np.ndarray:
        return permutation(len(self.users), self.options.seed, self.stream, epoch)

    def lengths_in(self, epoch: int) -> np.ndarray:
        begin, end = self._windows(self.users, epoch)
        start = self.train.indptr[self.users]
        return self._tokens_before[start + end] - self._tokens_before[start + begin]

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> AnswerBatch:
        prompts, _, _ = self._prompts(examples, epoch)
        return AnswerBatch(**_answer_tensors(prompts, prompts.tokens))

    def _windows(self, users: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions [begin, end) of the histories of users (B,) that an epoch reads; the last: the answer."""
        lengths = np.diff(self.train.indptr)[users]
        draw = uniform(self.options.seed, self.stream, epoch, users, -1)
        shortest = np.full(len(users), 2) if self.any_answer else np.minimum(lengths, self.options.length + 1)
        end = shortest + (draw * (lengths - shortest + 1)).astype(np.int64)
        return np.maximum(end - self.options.length - 1, 0), end

    def _prompts(self, examples: np.ndarray, epoch: int) -> tuple[Prompts, Ragged, np.ndarray]:
        """Prompts with their answers, the histories in them (B rows), and the items that answer (B,)."""
        options, users = self.options, self.users[examples]
        items = self.train.histories(users)
        begin, end = self._windows(users, epoch)
        items = items.filter((items.positions >= begin[items.rows]) & (items.positions < end[items.rows]))
        history, answers = items.filter(~items.last_in_row), items.values[items.last_in_row]
        candidates = None
        if options.candidates:
            candidates = Ragged.from_lists(
                [
                    self._candidates(user, answer, epoch)
                    for user, answer in zip(users.tolist(), answers.tolist(), strict=True)
                ]
            )
        answer_tokens = self.writer.answers.take(answers)
        prompts, history = self.writer.fill(history, options.context, candidates, answer_tokens)
        return prompts, history, answers

    def _candidates(self, user: int, answer: int, epoch: int) -> np.ndarray:
        history, options = self.train.history(user), self.options
        key = (options.seed, self.stream, epoch, user)
        return draw_candidates(answer, history, self.groups, options.candidates, *key)


class ContrastiveCorpus(AnswerCorpus):
    """Stage 2: prompts, answers and the items that the two contrastive losses compare.

    Every item of a history but the first is a target, and the last one is the answer. Of a history longer
    than `options.length` each epoch reads another window.

    Args:
        train, writer, groups, options: as `AnswerCorpus` takes them.
        hard: int64 (n_users, H), hard negatives of each user; H may be 0.
    """

    stream = 6
    any_answer = False

    def __init__(
        self,
        train: Interactions,
        writer: PromptWriter,
        groups: np.ndarray,
        options: RSLLMCorpusOptions,
        hard: np.ndarray,
    ) -> None:
        super().__init__(train, writer, groups, options)
        self.hard = hard

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> ContrastiveBatch:
        prompts, history, answers = self._prompts(examples, epoch)
        n_text_tokens = self.writer.tokenizer.n_text_tokens
        is_soft = prompts.mask & (prompts.tokens >= n_text_tokens)  # (B, L)
        # The next item of each history item (R,): the one after it, or the answer after the last.
        following = np.empty(len(history.values), dtype=np.int64)
        following[~history.last_in_row] = history.values[history.positions > 0]
        following[history.last_in_row] = answers[history.lengths > 0]
        hard = self.hard[self.users[examples]]  # (B, H)
        # Number the items within the batch: one look-up for all lists together.
        lists = [
            prompts.tokens[is_soft] - n_text_tokens,
            following,
            history.values,
            self.sample(epoch, step),
            hard.ravel(),
        ]
        ends = np.cumsum([len(numbers) for numbers in lists])
        items, local = np.unique(np.concatenate(lists), return_inverse=True)  # (M,), (total,)
        in_prompts, targets, in_histories, sample, local_hard = np.split(local, ends[:-1])
        tokens = prompts.tokens.copy()
        tokens[is_soft] = n_text_tokens + in_prompts
        return ContrastiveBatch(
            **_answer_tensors(prompts, tokens),
            items=as_tensor(items),
            groups=as_tensor(self.groups[items]),
            history_index=as_tensor(prompts.history_index),
            history_rows=as_tensor(history.rows),
            local_history=as_tensor(in_histories),
            local_targets=as_tensor(targets),
            title_index=as_tensor(prompts.title_index),
            title_rows=as_tensor(prompts.title_rows),
            local_sample=as_tensor(sample),
            local_hard=as_tensor(local_hard.reshape(hard.shape)),
        )

    def sample(self, epoch: int, step: int) -> np.ndarray:
        """The items (S,) that a step is contrasted with, the same for all processes and micro-batches.

        All items if there are no more than `options.negatives`.
        """
        n_items, size = len(self.groups), self.options.negatives
        if size >= n_items:
            return np.arange(n_items)
        generator = np.random.default_rng(int(mix(self.options.seed, self.stream, epoch, step)[0]))
        return generator.choice(n_items, size, replace=False)


def _answer_tensors(prompts: Prompts, tokens: np.ndarray) -> dict[str, Tensor]:
    """The fields of `AnswerBatch`, with the tokens (B, L) of the prompts."""
    arrays = {
        "tokens": tokens,
        "mask": prompts.mask,
        "state_index": prompts.answer_index - 1,
        "target_tokens": tokens.ravel()[prompts.answer_index],
    }
    return {name: as_tensor(array) for name, array in arrays.items()}
