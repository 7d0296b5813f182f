"""Behaviour as a language (RSLLM): examples of both stages, a prompt and the title of the item that came next."""

from dataclasses import dataclass

import numpy as np

from cllm4rec.corpora.base import Corpus, as_tensors
from cllm4rec.corpora.padding import Batch
from cllm4rec.corpora.rsllm_prompts import Prompts, PromptWriter
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
        candidates: items that a prompt names, the right one among them; 0: none.
        negatives: size of the sample of items that a step contrasts with.
        seed: of all draws.
    """

    context: int
    length: int
    candidates: int = 0
    negatives: int = 0
    seed: int = 0


class AnswerCorpus(Corpus):
    """Prompts and answers for the language-modelling loss. One example a user with two training items or more.

    Each epoch another item of the history, but the first, is the answer to those before it. A batch has `tokens` and `mask`
    (B, L), `read` (T,) where the words of the answers are predicted, `rows` (T,) 0 .. T-1, and `targets` (T,) these words.
    """

    stream = 5
    any_answer = True

    def __init__(
        self, train: Interactions, writer: PromptWriter, groups: np.ndarray, options: RSLLMCorpusOptions
    ) -> None:
        """groups: `title_groups` of the items."""
        self.train, self.writer, self.groups, self.options = train, writer, groups, options
        self.users = np.flatnonzero(np.diff(train.indptr) > 1)
        self._written = np.append(
            0, np.cumsum(writer.written.lengths[train.items])
        )  # tokens of the events before each
        self.lengths = self.lengths_in(0)

    def selection(self, epoch: int) -> np.ndarray:
        return permutation(len(self.users), self.options.seed, self.stream, epoch)

    def lengths_in(self, epoch: int) -> np.ndarray:
        begin, end = self._stretch(self.users, epoch)
        first = self.train.indptr[self.users]
        return self._written[first + end] - self._written[first + begin]

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        prompts, _, _ = self._prompts(examples, epoch)
        return self._with_answers(prompts) | as_tensors(targets=prompts.tokens.ravel()[prompts.answers])

    def _stretch(self, users: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Where in the histories of users (B,) the items begin and end that an epoch reads; the last of them is the answer."""
        lengths = np.diff(self.train.indptr)[users]
        draw = uniform(self.options.seed, self.stream, epoch, users, -1)
        shortest = np.full(len(users), 2) if self.any_answer else np.minimum(lengths, self.options.length + 1)
        end = shortest + (draw * (lengths - shortest + 1)).astype(np.int64)
        return np.maximum(end - self.options.length - 1, 0), end

    def _prompts(self, examples: np.ndarray, epoch: int) -> tuple[Prompts, Ragged, np.ndarray]:
        """The prompts with their answers, the histories that they hold, and the items (B,) that answer them."""
        options, users = self.options, self.users[examples]
        items = self.train.histories(users)
        begin, end = self._stretch(users, epoch)
        items = items.where((items.positions >= begin[items.rows]) & (items.positions < end[items.rows]))
        is_answer = items.positions == (items.lengths - 1)[items.rows]
        history, answers = items.where(~is_answer), items.values[is_answer]
        candidates = None
        if options.candidates:
            candidates = Ragged.from_lists(
                [self._candidates(*one, epoch) for one in zip(users.tolist(), answers.tolist(), strict=True)]
            )
        prompts, history = self.writer.fill(
            history, options.context, candidates, self.writer.answers.take(answers)
        )
        return prompts, history, answers

    def _candidates(self, user: int, answer: int, epoch: int) -> np.ndarray:
        own = self.train.history(user)
        return draw_candidates(
            answer, own, self.groups, self.options.candidates, self.options.seed, self.stream, epoch, user
        )

    @staticmethod
    def _with_answers(prompts: Prompts) -> Batch:
        read = prompts.answers - 1
        return as_tensors(tokens=prompts.tokens, mask=prompts.mask, read=read, rows=np.arange(len(read)))


class ContrastiveCorpus(AnswerCorpus):
    """The same, with what the two contrastive losses need. Every item of a history but the first is an item that came next, and
    the last one the answer; of a history longer than `length` each epoch reads another stretch.

    Items are numbered within the batch: `items` (M,) says which they are, and soft tokens, `targets` and the others below
    are places in it. Further tensors: `words` (T,) the words of the answers; `targets` (R,) the items that came next, and
    `states` (R,) where the history before each is read, `targets_of` (R,) its example; `title_words` (W,) places of the
    titles' words, with `title_rows` (W,) which of `titled` (P,) items they name; `sample` (S,) the items of the step to
    contrast with, `hard` (B, H) those of each example; `groups` (M,) equal for items that share a title.
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
        """hard: (n_users, H) items to contrast with beside the sample, H may be 0."""
        super().__init__(train, writer, groups, options)
        self.hard = hard

    def batch(self, examples: np.ndarray, epoch: int, step: int = 0) -> Batch:
        prompts, history, answers = self._prompts(examples, epoch)
        n_words = self.writer.tokenizer.n_words
        soft = prompts.mask & (prompts.tokens >= n_words)
        last = history.positions == (history.lengths - 1)[history.rows]
        following = np.empty(len(history.values), dtype=np.int64)
        following[~last] = history.values[history.positions > 0]
        following[last] = answers[history.lengths > 0]
        sample, hard = self.sample(epoch, step), self.hard[self.users[examples]]
        lists = [prompts.tokens[soft] - n_words, following, history.values, sample, hard.ravel()]
        items, places = np.unique(np.concatenate(lists), return_inverse=True)
        in_prompt, targets, titled, sample, hard_places = np.split(
            places, np.cumsum([len(one) for one in lists])[:-1]
        )
        words = prompts.tokens.ravel()[prompts.answers]
        prompts.tokens[soft] = n_words + in_prompt
        return self._with_answers(prompts) | as_tensors(
            words=words,
            items=items,
            groups=self.groups[items],
            targets=targets,
            states=prompts.closes,
            targets_of=history.rows,
            title_words=prompts.words,
            title_rows=prompts.word_items,
            titled=titled,
            sample=sample,
            hard=hard_places.reshape(hard.shape),
        )

    def sample(self, epoch: int, step: int) -> np.ndarray:
        """The items that this step contrasts with: the same for all processes and micro-batches; all, if there are no more."""
        n_items, size = len(self.groups), self.options.negatives
        if size >= n_items:
            return np.arange(n_items)
        generator = np.random.default_rng(int(mix(self.options.seed, self.stream, epoch, step)[0]))
        return generator.choice(n_items, size, replace=False)
