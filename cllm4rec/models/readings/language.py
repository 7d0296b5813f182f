"""A causal language model as an encoder of texts."""

import json
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from cllm4rec.corpora.documents import text_begin
from cllm4rec.corpora.padding import BatchGroup, batches_by_length, pad
from cllm4rec.corpora.words import WordTokenizer
from cllm4rec.data.ragged import Ragged
from cllm4rec.messages import library_errors
from cllm4rec.models.language.architecture import weight_files
from cllm4rec.models.language.backbone import context_of
from cllm4rec.models.language.conformance import check_logits
from cllm4rec.models.language.fingerprints import config_sha256, tokenizer_sha256
from cllm4rec.models.language.head import WordHead, output_layer
from cllm4rec.models.language.pretrained import Pretrained
from cllm4rec.models.readings.fingerprints import files_sha256
from cllm4rec.training.allocator import limit_kernel_caches
from cllm4rec.training.device import on_gpu
from cllm4rec.training.memory import FreedMemory

TOKENS_AT_ONCE = 1 << 12  # padded tokens of a forward pass


class LanguageEncoder:
    """Means of a language model's hidden states over the words of a text.

    The states are those after layer round(depth x layers), at least the first: entry `layer` of the
    `hidden_states` of transformers. At depth 1 they are the last states, after the final norm. A text begins
    as the model's tokenizer begins one (BOS), and what is put before it is left out of the mean. Texts are
    cut to the model's window, at most 1,024 tokens.

    Attributes:
        pretrained: the model, whose weights are read when texts are.
        layer: after which the states are taken.
        dtype: in which the weights are held and multiplied.
    """

    def __init__(self, pretrained: Pretrained, depth: float, dtype: torch.dtype) -> None:
        """Find the layer, without reading weights.

        Args:
            pretrained: the model.
            depth: share of the layers, above 0 to 1.
            dtype: float32 or bfloat16.

        Raises:
            ValueError: the layers of the model cannot be found, and `depth` is below 1.
        """
        self.pretrained, self.dtype = pretrained, dtype
        n_layers = int(pretrained.model.config.num_hidden_layers)
        self.layer = min(n_layers, max(1, round(depth * n_layers)))
        if self.layer < n_layers:
            decoder_layers(pretrained.model)

    @cached_property
    def _words(self) -> WordTokenizer:
        return WordTokenizer(self.pretrained.tokenizer, self.pretrained.role)

    @cached_property
    def _begin(self) -> tuple[int, ...]:
        """The tokens that the tokenizer puts before a text."""
        return text_begin(self._words)

    @cached_property
    def _window(self) -> int:
        """Most tokens of a text, its beginning included."""
        return context_of(self.pretrained.model.config)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights' files, configuration, tokenizer, layer and way of reading."""
        path = self.pretrained.path
        files = [path] if path.is_file() else weight_files(path)
        described = {
            "mean of the states of words": 1,  # to be raised when this module reads in another way
            "weights": files_sha256(files[0].parent, files),
            "config": config_sha256(self.pretrained.model.config),
            "tokenizer": tokenizer_sha256(self.pretrained.tokenizer),
            "begin": self._begin,
            "window": self._window,
            "layer": self.layer,
            "dtype": str(self.dtype),
        }
        return sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts, float32 (n, d). Progress shows on a terminal.

        Raises:
            ValueError: the tokenizer or the weights cannot be read, or the model does not read from left to
                right.
        """
        tokens = self._tokens(texts)
        n_begin = len(self._begin)
        limit_kernel_caches()
        model, _ = self.pretrained.load(self.dtype)
        with library_errors(f"{self.pretrained.role} {str(self.pretrained.path)!r} cannot be loaded"):
            check_reads_without_mask(model.eval())
        device = torch.device("cuda" if on_gpu() else "cpu")
        cast(nn.Module, model).to(device)
        freed = FreedMemory(device, None)
        vectors = np.zeros((len(texts), 1), dtype=np.float32)
        not_empty = np.flatnonzero(tokens.lengths > n_begin)
        with tqdm(total=len(not_empty), desc="reading texts", unit="text", leave=False, disable=None) as bar:
            # the longest first: memory is short at once or never
            for batch in reversed(batches_by_length(tokens.lengths[not_empty], TOKENS_AT_ONCE)):
                rows = not_empty[batch]
                means = _mean_states(model, tokens.take(rows), self.layer, n_begin)
                if means.shape[1] != vectors.shape[1]:  # the first batch says how wide the states are
                    vectors = np.zeros((len(texts), means.shape[1]), dtype=np.float32)
                vectors[rows] = means
                freed.after_micro_batch()
                bar.update(len(rows))
        return vectors

    def _tokens(self, texts: Sequence[str]) -> Ragged:
        """Tokens of each text with its beginning, cut to the window."""
        words = self._words.tokens(texts)
        return Ragged.from_lists(
            [np.array([*self._begin, *ids][: self._window], dtype=np.int64) for ids in words]
        )


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of a model in order: the outermost list of as many modules as it has layers.

    Raises:
        ValueError: there is no such list.
    """
    n_layers = model.config.num_hidden_layers
    for module in model.base_model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_layers:
            return module
    raise ValueError(
        f"{model.config.model_type}: its layers are not in one list, so that they cannot be read at a "
        "`depth`: give `depth=1`"
    )


class _ReachedError(Exception):
    """Ends a forward pass at the layer whose states are wanted."""

    def __init__(self, states: Tensor) -> None:
        super().__init__()
        self.states = states


def states_after(model: PreTrainedModel, tokens: Tensor, layer: int) -> Tensor:
    """Hidden states (B, L, d) after a layer; the layers above are not computed.

    Args:
        model: of `decoder_layers`.
        tokens: int64 (B, L). Attention is causal, so that padding on the right changes nothing before it.
        layer: 1 to the number of layers; after the last one, the final norm is applied.
    """
    inputs: dict[str, Any] = {"input_ids": tokens, "use_cache": False}
    if layer == model.config.num_hidden_layers:
        states: Tensor = model.base_model(**inputs).last_hidden_state
        return states

    def end(_: nn.Module, __: Any, output: Any) -> None:
        raise _ReachedError(output[0] if isinstance(output, tuple) else output)

    hook = decoder_layers(model)[layer - 1].register_forward_hook(end)
    try:
        model.base_model(**inputs)
    except _ReachedError as reached:
        return reached.states
    finally:
        hook.remove()
    raise ValueError(f"{model.config.model_type}: its layers are not run one after another: give `depth=1`")


def check_reads_without_mask(model: PreTrainedModel) -> None:
    """Refuse a model in which padding on the right changes the states before it.

    The vector of a text would depend on the other texts of its batch.

    Args:
        model: in evaluation mode.

    Raises:
        ValueError: its logits differ from those of `states_after`, which gives it no mask.
    """
    head, layer = WordHead.of(model), output_layer(model)

    def logits(tokens: Tensor, mask: Tensor) -> Tensor:
        states = states_after(model, tokens, model.config.num_hidden_layers)[mask]  # (T, d)
        return head.logits(layer(states.to(layer.weight.dtype)).float())

    check_logits(model, logits)


@torch.inference_mode()
def _mean_states(model: PreTrainedModel, rows: Ragged, layer: int, n_begin: int) -> np.ndarray:
    """Means of the states of the words (B, d), float32.

    Args:
        model: in evaluation mode.
        rows: tokens of each text (B,), more than n_begin of each.
        layer: after which the states are taken.
        n_begin: tokens at the beginning that are no words.
    """
    (tokens,), (mask,), _ = pad(rows, BatchGroup(np.array([len(rows.lengths)])))
    mask[:, :n_begin] = False
    mask = mask.to(model.device)
    states = states_after(model, tokens.to(model.device), layer).float()  # (B, L, d)
    sums = (states * mask[..., None]).sum(1)
    return (sums / mask.sum(1, keepdim=True)).cpu().numpy()
