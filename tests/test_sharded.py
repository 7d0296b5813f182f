"""Weights sharded over two processes (FSDP2) train as those of one process do, in double precision.

This file is also the program of the two processes: `python test_sharded.py RANK FOLDER`. They meet in a file, and gloo talks
over the loopback interface alone.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from cllm4rec.data.preparation import build_dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.cllm4rec import CLLM4Rec
from cllm4rec.models.configs import CLLM4RecConfig
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.loop import Objective, micro_batches, n_steps

pytestmark = pytest.mark.slow

N_PROCESSES = 2
STEPS = 4  # of each objective
TRAINING = TrainConfig(batch_size=8, learning_rate=3e-3)
ORDER = ("content", "collaborative", "recommend")


def start() -> tuple[Any, list[Objective]]:
    """An untrained network in double precision, and the three objectives. 41 users and 90 items: no even half of a table."""
    world = taste_world(0, n_users=41, n_items=90, n_events=15)
    dataset = build_dataset(world.events, world.items)
    model = CLLM4Rec(CLLM4RecConfig(backbone="tiny", start="random"))
    model._learn_ids(dataset.train)
    model.net = model._build(dataset.train, 0)
    objectives = [one for stage in model.stages for one in model._objectives(dataset.train, stage, TRAINING)]
    by_name = {one.name: one for one in objectives}
    return model.net.double(), [by_name[name] for name in ORDER]


def train(net: Any, objectives: list[Objective], rank: int, n_processes: int) -> list[tuple[float, float]]:
    """A few steps of each objective on this process's slice of each global batch.

    Returns:
        Of each step, the slice's share of the loss, and the norm of the gradient of the whole batch before it is clipped.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr=TRAINING.learning_rate, weight_decay=0.0, fused=True)
    place: Any = SimpleNamespace(process_index=rank, num_processes=n_processes)
    record = []
    alone: Any = SimpleNamespace(process_index=0, num_processes=1)
    for objective in objectives:
        steps = range(min(STEPS, n_steps(objective, 0, TRAINING)))
        whole = micro_batches(objective, 0, steps, TRAINING, alone)
        for own, all_parts in zip(micro_batches(objective, 0, steps, TRAINING, place), whole, strict=True):
            n_targets = sum(len(batch["targets"]) for batch, _ in all_parts)
            loss = torch.zeros((), dtype=torch.float64)
            for batch, weight in own:
                loss = loss + torch.stack(list(net(objective.name, batch).values())).sum() * weight / n_targets
            (loss * n_processes).backward()  # FSDP averages gradients over processes: times their number gives the sum
            norm: Any = torch.nn.utils.clip_grad_norm_(net.parameters(), TRAINING.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            record.append((float(loss.detach()), float(norm.full_tensor() if n_processes > 1 else norm)))
    return record


def shard(net: Any) -> None:
    """The blocks of the backbone each by itself, then all the rest: ID tables, words and positions."""
    mesh = init_device_mesh("cpu", (N_PROCESSES,))
    for block in net.backbone.model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)


def take_part(rank: int, folder: Path) -> None:
    """One of the processes: writes its own pieces, before and after training, and the whole weights that it gathers."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    setattr(torch.Tensor, "float", torch.Tensor.double)  # noqa: B010 - losses are computed in single precision otherwise
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=N_PROCESSES)
    net, objectives = start()
    shard(net)
    record = train(net, objectives, rank, N_PROCESSES)
    pieces = {name: p.to_local().detach().clone() for name, p in net.named_parameters()}
    whole = {name: p.full_tensor().detach() for name, p in net.named_parameters()}
    save_file(pieces, folder / f"pieces-{rank}.safetensors")
    save_file(whole, folder / f"whole-{rank}.safetensors")
    (folder / f"record-{rank}.json").write_text(json.dumps(record))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    path = tmp_path_factory.mktemp("sharded")
    started = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(path)], stderr=subprocess.PIPE, text=True)
        for rank in range(N_PROCESSES)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * N_PROCESSES, errors
    return path


@pytest.fixture(scope="module")
def alone() -> tuple[dict[str, Tensor], dict[str, Tensor], list[tuple[float, float]]]:
    """Weights before and after the same training in this process, unsharded, and its losses and norms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        net, objectives = start()
        first = weights(net)
        record = train(net, objectives, 0, 1)
    return first, weights(net), record


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def distance(one: Tensor, other: Tensor) -> float:
    return float(torch.linalg.vector_norm(one - other) / torch.linalg.vector_norm(one))


def test_every_objective_is_trained_and_moves_the_weights(alone: Any) -> None:
    first, last, record = alone
    assert len(record) > 2 * STEPS
    assert any(norm > TRAINING.clip_norm for _, norm in record), "gradients are clipped"
    for name in first:
        assert distance(last[name], first[name]) > 1e-3, name


@pytest.mark.parametrize("rank", range(N_PROCESSES))
def test_sharded_weights_are_those_of_one_process(rank: int, folder: Path, alone: Any) -> None:
    expected, got = alone[1], load_file(folder / f"whole-{rank}.safetensors")
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == torch.float64
        assert distance(tensor, got[name]) < 1e-10, name


def test_shares_of_the_loss_add_up_and_the_gradient_is_that_of_the_whole_batch(folder: Path, alone: Any) -> None:
    own = [json.loads((folder / f"record-{rank}.json").read_text()) for rank in range(N_PROCESSES)]
    losses, norms = zip(*alone[2], strict=True)
    assert [sum(loss for loss, _ in parts) for parts in zip(*own, strict=True)] == pytest.approx(losses, rel=1e-10)
    for record in own:
        assert [norm for _, norm in record] == pytest.approx(norms, rel=1e-10)


def test_each_process_holds_half_of_every_weight(folder: Path, alone: Any) -> None:
    """The rows of a matrix are divided, the first process has the odd one; their pieces together are the whole."""
    pieces = [load_file(folder / f"pieces-{rank}.safetensors") for rank in range(N_PROCESSES)]
    whole = load_file(folder / "whole-0.safetensors")
    odd = 0
    for name, tensor in alone[1].items():
        n, width = len(tensor), tensor.shape[1:]
        assert [piece[name].shape for piece in pieces] == [(n - n // 2, *width), (n // 2, *width)], name
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), whole[name]), name
        odd += n % 2
    assert odd, "no weight is divided unevenly"
    held = [sum(tensor.numel() for tensor in piece.values()) for piece in pieces]
    assert max(held) < 0.51 * sum(tensor.numel() for tensor in alone[1].values())


if __name__ == "__main__":
    take_part(int(sys.argv[1]), Path(sys.argv[2]))
