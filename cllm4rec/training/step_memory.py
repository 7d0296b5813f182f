"""What a step of each objective holds, measured on a few examples, and the micro-batches that fit."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from cllm4rec.training.checkpointing import checkpointable_layers, checkpointed
from cllm4rec.training.limits import Limits, TokenLimit
from cllm4rec.training.live_bytes import LiveBytes
from cllm4rec.training.memory import GIB, PROCESS_BYTES, free_bytes, needed_bytes, optimiser_bytes
from cllm4rec.training.objective import Objective
from cllm4rec.training.step_values import once_a_step

log = logging.getLogger("cllm4rec")

SHARE_OF_FREE = 0.5  # of the memory that is free, for a micro-batch
SHARE_FOR_ONE = 0.8  # of it, for an example that cannot be divided
FEWEST_BYTES = GIB  # for micro-batches, where a process holds more than PROCESS_BYTES without them
# Parts of batches are not cut for memory in small networks, such as those of the built-in backbones.
SMALL_TOKENS, SMALL_BYTES = 1 << 16, 5 * GIB  # a network is small if so many tokens take no more
ALLOCATED = 1.25  # bytes of the process to bytes of its tensors: freed blocks of other sizes lie between them
FIRST_PROBE = 128  # tokens of short examples, which show whether the longest can be tried
SAMPLED_LENGTHS = 64  # examples whose true lengths are compared with those of the corpus


@dataclass(frozen=True)
class Cost:
    """Bytes that forward and backward pass hold at their peak, besides the weights: affine in the tokens.

    Attributes:
        fixed: whatever the micro-batch, e.g. gradients of the classes of a softmax.
        per_token: for each token, padding included.
        longest: tokens of the longest example.
        seconds: of a token.
    """

    fixed: float
    per_token: float
    longest: int
    seconds: float

    def bytes(self, tokens: int) -> float:
        """Bytes of a micro-batch."""
        return self.fixed + self.per_token * tokens


@dataclass(frozen=True)
class StepMemory:
    """The limits of the micro-batches, and what was measured for them.

    Attributes:
        limits: of the micro-batches.
        costs: name of an objective -> its cost.
    """

    limits: Limits
    costs: Mapping[str, Cost]


@dataclass(frozen=True)
class _Probe:
    """A micro-batch that was computed.

    Attributes:
        tokens: padding included.
        width: tokens of its longest example.
        forward: most bytes taken in the forward pass.
        peak: most bytes taken in both passes.
        seconds: of both.
    """

    tokens: int
    width: int
    forward: float
    peak: float
    seconds: float


@dataclass(frozen=True)
class _Room:
    """Bytes that activations may take.

    Attributes:
        micro_batch: of several examples.
        small: of several, where a network is small.
        example: of one, which cannot be divided.
        held: taken by weights, data, gradients and moments.
    """

    micro_batch: float
    small: float
    example: float
    held: float


def measure(
    net: Any,
    objectives: Sequence[Objective],
    accelerator: Accelerator,
    memory: float | None = None,
    averaged: bool = False,
) -> StepMemory:
    """Compute some examples of each objective, without a step, and find the largest micro-batches that fit.

    All processes get the smallest limit of any.

    Args:
        net, objectives, accelerator: as `train` takes them; the network is not wrapped yet.
        memory: GiB that a process may take; by default a share of what is free.
        averaged: whether training keeps moving averages of the weights.

    Raises:
        ValueError: not even the longest example fits with its layers checkpointed.
    """
    device, was_training = accelerator.device, net.training
    room = _room(net, device, memory, averaged)
    net.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        costs = _costs(net, objectives, accelerator, room)
        too_long = _too_long(costs, room)
        checkpoints = too_long is not None and bool(checkpointable_layers(net))
        if checkpoints:
            with checkpointed(net):
                costs = _costs(net, objectives, accelerator, room)
            too_long = _too_long(costs, room)
            if too_long is None:
                log.info("the longest example needs much memory: layers are computed twice (checkpointing)")
    net.train(was_training)
    if too_long is not None:
        raise ValueError(_refusal(too_long, costs[too_long], room, memory))
    limits = {
        objective.name: TokenLimit(_tokens(costs[objective.name], room), _beyond(objective))
        if objective.name in costs
        else TokenLimit(0)
        for objective in objectives
        if len(objective.corpus.selection(objective.from_epoch))
    }
    return StepMemory(_agreed(Limits(limits, checkpoints, memory)), costs)


def _room(net: nn.Module, device: torch.device, memory: float | None, averaged: bool) -> _Room:
    """What activations may take, of `memory` GiB or of what is free."""
    added = optimiser_bytes(net, averaged)
    held = needed_bytes(device) + added
    if memory is not None:
        room = memory * GIB - held
        return _Room(room, room, room, held)
    free = free_bytes(device) - added
    share = SHARE_OF_FREE * free
    most = share if device.type == "cuda" else min(share, max(PROCESS_BYTES - held, FEWEST_BYTES))
    return _Room(most, min(share, SMALL_BYTES), SHARE_FOR_ONE * free, held)


def _costs(
    net: Any, objectives: Sequence[Objective], accelerator: Accelerator, room: _Room
) -> dict[str, Cost]:
    """The cost of each objective that trains a weight."""
    costs = {}
    for objective in objectives:
        if len(objective.corpus.selection(objective.from_epoch)):
            cost = _cost(net, objective, accelerator, room)
            if cost is None:
                log.info("%s: no trained weight takes part in it, its steps are left out", objective.name)
            else:
                costs[objective.name] = cost
    return costs


def _cost(net: Any, objective: Objective, accelerator: Accelerator, room: _Room) -> Cost | None:
    """The cost of an objective; None if it trains no weight.

    Two micro-batches are computed: of short examples, then of the longest. The second is left out where the
    first shows that there may be no room for it. The cost is then as if all of it grew with the tokens.
    """
    lengths = objective.corpus.lengths_in(objective.from_epoch)
    by_length = np.argsort(lengths, kind="stable")
    longest = int(lengths[by_length[-1]])
    n_short = int(np.searchsorted(lengths[by_length], min(FIRST_PROBE, longest // 2), side="right"))
    last = max(1, n_short)
    n_first = max(1, FIRST_PROBE // max(1, int(lengths[by_length[last - 1]])))
    first = _probe(net, objective, by_length[max(0, last - n_first) : last], accelerator)
    if first is None:
        return None
    longest += max(0, first.width - int(lengths[by_length[last - 1]]))  # what the lengths leave out
    alone = Cost(0.0, first.peak / first.tokens, longest, first.seconds / first.tokens)
    if alone.bytes(longest) > room.example:
        return alone
    n_second = -(-2 * max(FIRST_PROBE, first.tokens) // longest)
    second = _probe(net, objective, by_length[-n_second:], accelerator)
    if second is None or second.tokens <= first.tokens:
        return alone
    n_more = second.tokens - first.tokens
    more = max(second.forward - first.forward, second.peak - first.peak, n_more)
    fixed = max(probe.peak - more / n_more * probe.tokens for probe in (first, second))
    return Cost(max(0.0, fixed), more / n_more, longest, second.seconds / second.tokens)


def _probe(net: Any, objective: Objective, examples: np.ndarray, accelerator: Accelerator) -> _Probe | None:
    """Compute a micro-batch forwards and backwards; None if its loss has no gradient."""
    batch = objective.corpus.batch(examples, objective.from_epoch).to(accelerator.device)
    began = time.perf_counter()
    with LiveBytes([*net.parameters(), *net.buffers()]) as live, once_a_step(True) as values:
        with accelerator.autocast():
            terms = net(objective.name, batch)
        loss: Tensor = torch.stack(list(terms.values())).sum()
        forward = live.peak
        if not loss.requires_grad:
            return None
        loss.backward()
        values.backward()
    for parameter in net.parameters():
        parameter.grad = None
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    factor = ALLOCATED if accelerator.device.type == "cpu" else 1.0
    return _Probe(batch.mask.numel(), batch.mask.shape[1], factor * forward, factor * live.peak, seconds)


def _too_long(costs: Mapping[str, Cost], room: _Room) -> str | None:
    """The objective whose longest example takes most; None if all fit."""
    needed = {name: cost.bytes(cost.longest) for name, cost in costs.items()}
    name = max(needed, key=needed.__getitem__, default=None)
    return name if name is not None and needed[name] > room.example else None


def _refusal(objective: str, cost: Cost, room: _Room, memory: float | None) -> str:
    needed, held = cost.bytes(cost.longest) / GIB, room.held / GIB
    what = (
        f"the longest example of {objective} ({cost.longest:,} tokens) needs {needed:.4g} GiB in addition to "
        f"{held:.2f} GiB that the process holds (weights, data, libraries) or will (optimiser)"
    )
    if memory is not None:
        return f"`memory` {memory:g} is too little: {what}; give at least {needed + held + 0.1:.1f}"
    return f"not enough memory is free: {what}; free some, or train on a machine with more"


def _tokens(cost: Cost, room: _Room) -> int:
    """Tokens of a micro-batch: as many as fit, rounded down to a power of two.

    Rounding keeps the limit the same in the next run, where slightly more or less is free.
    """
    fitting = max(1, int((room.micro_batch - cost.fixed) / cost.per_token))
    tokens = 1 << (fitting.bit_length() - 1)
    return max(tokens, SMALL_TOKENS) if cost.bytes(SMALL_TOKENS) <= room.small else tokens


def _beyond(objective: Objective) -> int:
    """Most tokens that `lengths_in` leaves out, of examples of all lengths."""
    corpus, epoch = objective.corpus, objective.from_epoch
    lengths = corpus.lengths_in(epoch)
    places = np.unique(np.linspace(0, len(lengths) - 1, SAMPLED_LENGTHS).astype(int))
    examples = np.argsort(lengths, kind="stable")[places]
    n_tokens = corpus.batch(examples, epoch).mask.sum(1).numpy()
    return max(0, int((n_tokens - lengths[examples]).max()))


def _agreed(limits: Limits) -> Limits:
    """The smallest limits of all processes, so that all compute their parts in the same way."""
    everywhere: list[Limits] = gather_object([limits])
    tokens = {
        name: min((each.micro_batches[name] for each in everywhere), key=lambda limit: limit.tokens)
        for name in limits.micro_batches
    }
    return replace(limits, micro_batches=tokens, checkpointed=any(each.checkpointed for each in everywhere))
