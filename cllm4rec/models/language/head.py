"""What a language model makes of its words: the factor of its embeddings, and its logits.

Both are asked of the model itself. Families differ: Gemma multiplies embeddings by sqrt(width), Granite and
Cohere multiply logits, Gemma 2 bounds them, Phi adds a bias.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

EXACTNESS = 1e-4  # relative error up to which a model's logits have a known form
# products of states and words that the model's forward is given: from tiny, for the factor, to the bound
PRODUCTS = (1e-3, 0.1, 1.0, 7.0, 30.0, 200.0, 1e6)


@dataclass
class _LayerOutput(ModelOutput):
    """Output of a decoder, in the fields that the models above it read."""

    last_hidden_state: Tensor | None = None
    past_key_values: Any = None
    cache: Any = None  # its name since transformers 5.24
    hidden_states: Any = None
    attentions: Any = None
    cross_attentions: Any = None
    router_logits: Any = None


@dataclass(frozen=True)
class WordHead:
    """What a model makes of the products of states and output embeddings, plus the output layer's bias.

    Attributes:
        scale: factor of the products and the bias.
        softcap: bound c of the logits, by c tanh(logits / c); None: unbounded.
    """

    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: PreTrainedModel) -> "WordHead":
        """Ask the forward of a model, whose layers and output layer are replaced for the question.

        The weights are not read: the model may be on the meta device.

        Raises:
            ValueError: the logits are no linear function of states with this scale and bound.
        """
        output = output_layer(model)
        n_words, width = output.out_features, output.in_features
        signs = torch.tensor([1.0, -1.0], dtype=torch.float32)
        numbers = torch.tensor(PRODUCTS, dtype=torch.float32).outer(signs).flatten()  # (14,)
        of_words = numbers[torch.arange(n_words) % len(numbers)]
        products = torch.stack([of_words, of_words.flip(0)])[None]  # (1, 2, n_words)
        states = torch.linspace(-3, 5, 2 * width, dtype=torch.float32).view(1, 2, width)
        tokens = torch.zeros(1, 2, dtype=torch.int64)
        try:
            with _answering(model, states, products) as read:
                logits = model(input_ids=tokens, attention_mask=None, use_cache=False).logits
        except AttributeError as error:
            raise ValueError(
                f"its forward reads more of its layers than this package knows ({error})"
            ) from error
        if len(read) != 1 or logits.shape != products.shape:
            raise ValueError("its forward does not give one logit for each word")
        if not torch.equal(read[0], states):
            raise ValueError("its forward changes the states before the output layer")
        head = cls._fitted(products, logits.to(products.dtype))
        if not torch.allclose(head.logits(products), logits.to(products.dtype), rtol=EXACTNESS, atol=0):
            raise ValueError(
                "its forward changes the logits of words in a way that this package does not know"
            )
        return head

    @classmethod
    def _fitted(cls, products: Tensor, logits: Tensor) -> "WordHead":
        """The scale, seen at the smallest product, and the bound, seen at the largest."""
        products, logits = products.flatten(), logits.flatten()
        smallest, largest = products.abs().argmin(), products.abs().argmax()
        scale = float(logits[smallest] / products[smallest])
        unbounded, found = abs(scale * float(products[largest])), abs(float(logits[largest]))
        return cls(scale, None if abs(found - unbounded) <= EXACTNESS * unbounded else found)

    def logits(self, products: Tensor) -> Tensor:
        """Logits (...) from products of states and output embeddings, bias included, (...)."""
        logits = products if self.scale == 1.0 else products * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The layer that gives a product for each word.

    Raises:
        ValueError: it is missing, is not linear, or does not fit the input embeddings.
    """
    layer, words = model.get_output_embeddings(), cast(Tensor, model.get_input_embeddings().weight)
    if type(layer) is not nn.Linear:
        raise ValueError(f"its output layer is {type(layer).__name__}, and not linear")
    if layer.weight.shape != words.shape:
        raise ValueError(
            f"its output layer has shape {list(layer.weight.shape)}, and its embedding table "
            f"{list(words.shape)}"
        )
    return layer


@contextmanager
def _answering(model: PreTrainedModel, states: Tensor, products: Tensor) -> Iterator[list[Tensor]]:
    """Let the layers of a model return these states, and its output layer these products.

    Yields:
        Inputs of the output layer.
    """
    read: list[Tensor] = []

    def layers(*_: Any, **__: Any) -> _LayerOutput:
        return _LayerOutput(last_hidden_state=states)

    def output(given: Tensor) -> Tensor:
        read.append(given)
        return products

    inner = [module for module in model.modules() if isinstance(module, PreTrainedModel)]
    replaced: list[Any] = [module for module in inner if module is not model]
    last: Any = output_layer(model)
    try:
        for module in replaced:
            module.forward = layers
        last.forward = output
        with torch.no_grad():
            yield read
    finally:
        for module in [*replaced, last]:
            del module.forward


@torch.no_grad()
def embedding_factor(model: PreTrainedModel) -> float:
    """Factor by which the embedding module multiplies the rows of its table.

    Raises:
        ValueError: it does something else than multiply by one number.
    """
    module = model.get_input_embeddings()
    weight = cast(Tensor, module.weight)
    word = torch.zeros(1, 1, dtype=torch.int64, device=weight.device)
    once, twice = (  # tables of one number, which take no memory
        functional_call(module, {"weight": weight.new_full((1, 1), number).expand_as(weight)}, (word,))
        for number in (1.0, 2.0)
    )
    factor = float(once.flatten()[0])
    if not factor > 0 or not torch.equal(once * 2, twice) or not bool((once == factor).all()):
        raise ValueError("its embedding module does more than multiply its table by a number")
    return factor
