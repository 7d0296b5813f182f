"""Weights sharded over two processes (FSDP2) train as those of one process do, in double precision.

They are sharded in two ways: by hand, and by Accelerate as docs/accelerate/fsdp2.yaml says. This file is also
the program of the two processes: `python -m tests.training.test_sharded RANK FOLDER`. They find each other by
a file, and gloo uses the loopback interface alone.
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
from accelerate import Accelerator
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed import init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import AdamW

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.batching import micro_batches, n_steps
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.device import PRECISIONS
from cllm4rec.training.objective import Objective

N_PROCESSES = 2
CPU = torch.device("cpu")
STEPS = 4  # of each objective
TRAINING = TrainConfig(batch_size=8, learning_rate=3e-3)
ORDER = ("content", "collaborative", "recommend")
ROOT = Path(__file__).parents[2]
CONFIGURATIONS = ROOT / "docs" / "accelerate"


def start() -> tuple[Any, list[Objective]]:
    """An untrained network in double precision and three objectives. 41 users: no table has an even half."""
    world = taste_world(0, n_users=41, n_items=90, n_events=15)
    dataset = Dataset.from_frame(world.events, world.items, split="random")
    model = CLLM4Rec(CLLM4RecConfig(backbone="tiny", start="random"))
    model._learn_ids(dataset.train)
    model.net = model._build(dataset.train, 0)
    for table in (model.net.collaborative, model.net.content):
        table.users.sparse = False  # a shard of a table has no sparse gradient
    objectives = [
        objective for stage in model.stages for objective in model.objectives(dataset.train, stage, TRAINING)
    ]
    by_name = {objective.name: objective for objective in objectives}
    return model.net.double(), [by_name[name] for name in ORDER]


def optimizer_of(net: nn.Module) -> AdamW:
    return AdamW(net.parameters(), lr=TRAINING.learning_rate, weight_decay=0.0, fused=True)


def train(
    net: Any, optimizer: Any, objectives: list[Objective], rank: int, n_processes: int
) -> list[tuple[float, float]]:
    """Train a few steps of each objective on this process's slice of each global batch.

    Returns:
        Of each step, the slice's share of the loss, and the norm of the global gradient before clipping.
    """
    process: Any = SimpleNamespace(process_index=rank, num_processes=n_processes, device=CPU)
    alone: Any = SimpleNamespace(process_index=0, num_processes=1, device=CPU)
    record = []
    for objective in objectives:
        steps = range(min(STEPS, n_steps(objective, 0, TRAINING)))
        whole = micro_batches(objective, 0, steps, TRAINING, alone)
        for batches, global_batches in zip(
            micro_batches(objective, 0, steps, TRAINING, process), whole, strict=True
        ):
            n_targets = sum(batch.n_targets for batch, _ in global_batches)
            loss = torch.zeros((), dtype=torch.float64)
            for batch, weight in batches:
                loss = (
                    loss + torch.stack(list(net(objective.name, batch).values())).sum() * weight / n_targets
                )
            (
                loss * n_processes
            ).backward()  # FSDP averages gradients over processes: times their number gives the sum
            norm: Any = torch.nn.utils.clip_grad_norm_(net.parameters(), TRAINING.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            record.append((float(loss.detach()), float(norm.full_tensor() if n_processes > 1 else norm)))
    return record


def by_hand(net: Any) -> tuple[Any, AdamW]:
    """Shard each block of the backbone, then the rest: ID tables, token and position embeddings."""
    mesh = init_device_mesh("cpu", (N_PROCESSES,))
    for block in net.backbone.model.transformer.h:
        fully_shard(block, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return net, optimizer_of(net)


def by_accelerate(net: Any) -> Any:
    """Shard as the environment of Accelerate's launcher says."""
    plugin = FullyShardedDataParallelPlugin()
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    accelerator.state.fsdp_plugin = plugin  # on a CPU it ignores the plugin
    accelerator.state.distributed_type = DistributedType.FSDP
    return accelerator.prepare(net, optimizer_of(net))


WAYS = {"by hand": by_hand, "by Accelerate": by_accelerate}


def train_as_rank(rank: int, folder: Path) -> None:
    """One process: writes losses and norms, its shards of the weights, and the gathered weights."""
    torch.set_num_threads(1)
    # Losses are in single precision else.
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=N_PROCESSES)
    for way, sharded in WAYS.items():
        net, objectives = start()
        net, optimizer = sharded(net)
        record = train(net, optimizer, objectives, rank, N_PROCESSES)
        units = [type(module).__name__ for module in net.modules() if isinstance(module, FSDPModule)]
        (folder / f"{way} {rank}.json").write_text(json.dumps({"record": record, "units": units}))
        save_file(
            {name: p.to_local().detach() for name, p in net.named_parameters()},
            folder / f"{way} {rank} pieces",
        )
        save_file(
            {name: p.full_tensor().detach() for name, p in net.named_parameters()},
            folder / f"{way} {rank} whole",
        )
    torch.distributed.destroy_process_group()


def launcher_environment(configuration: str) -> dict[str, str]:
    """The environment that `accelerate launch` makes of a configuration shipped with the package."""
    line = [
        "--config_file",
        str(CONFIGURATIONS / configuration),
        "--main_process_port",
        "29501",
        "training.py",
    ]
    return prepare_multi_gpu_env(_validate_launch_command(launch_command_parser().parse_args(line))[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the files that two processes wrote."""
    path = tmp_path_factory.mktemp("sharded")
    common = {
        "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": str(N_PROCESSES),
        "LOCAL_WORLD_SIZE": str(N_PROCESSES),
    }
    environment = {**os.environ, **launcher_environment("fsdp2.yaml"), **common, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.test_sharded", str(rank), str(path)],
            cwd=ROOT,
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
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
        record = train(net, optimizer_of(net), objectives, 0, 1)
    return first, weights(net), record


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def distance(expected: Tensor, tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(expected - tensor) / torch.linalg.vector_norm(expected))


@pytest.mark.slow
def test_every_objective_is_trained_and_moves_the_weights(alone: Any) -> None:
    first, last, record = alone
    assert len(record) > 2 * STEPS
    assert any(norm > TRAINING.clip_norm for _, norm in record), "gradients are clipped"
    for name in first:
        assert distance(last[name], first[name]) > 1e-3, name


@pytest.mark.slow
@pytest.mark.parametrize("rank", range(N_PROCESSES))
@pytest.mark.parametrize("way", WAYS)
def test_sharded_weights_are_those_of_one_process(way: str, rank: int, folder: Path, alone: Any) -> None:
    expected, got = alone[1], load_file(folder / f"{way} {rank} whole")
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == torch.float64
        assert distance(tensor, got[name]) < 1e-10, name


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_shares_of_the_loss_add_up_and_the_gradient_is_that_of_the_whole_batch(
    way: str, folder: Path, alone: Any
) -> None:
    records = [
        json.loads((folder / f"{way} {rank}.json").read_text())["record"] for rank in range(N_PROCESSES)
    ]
    losses, norms = zip(*alone[2], strict=True)
    assert [sum(loss for loss, _ in shares) for shares in zip(*records, strict=True)] == pytest.approx(
        losses, rel=1e-10
    )
    for record in records:
        assert [norm for _, norm in record] == pytest.approx(norms, rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_process_holds_half_of_every_weight(way: str, folder: Path, alone: Any) -> None:
    """The rows of a matrix are divided; the first process holds the odd row."""
    pieces = [load_file(folder / f"{way} {rank} pieces") for rank in range(N_PROCESSES)]
    whole = load_file(folder / f"{way} 0 whole")
    odd = 0
    for name, tensor in alone[1].items():
        n, width = len(tensor), tensor.shape[1:]
        assert [piece[name].shape for piece in pieces] == [(n - n // 2, *width), (n // 2, *width)], name
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), whole[name]), name
        odd += n % 2
    assert odd, "no weight is divided unevenly"
    held = [sum(tensor.numel() for tensor in piece.values()) for piece in pieces]
    assert max(held) < 0.51 * sum(tensor.numel() for tensor in alone[1].values())


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_network_and_each_block_of_the_backbone_are_gathered_by_themselves(
    way: str, folder: Path
) -> None:
    units = json.loads((folder / f"{way} 0.json").read_text())["units"]
    assert units == ["FSDPCLLM4RecNet", "FSDPGPT2Block", "FSDPGPT2Block"]


def test_accelerate_reads_the_configuration_of_sharding(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = launcher_environment("fsdp2.yaml")
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    for name in environment.keys() - os.environ.keys():
        monkeypatch.setenv(name, environment[name])
    plugin = FullyShardedDataParallelPlugin()
    assert (plugin.fsdp_version, plugin.reshard_after_forward) == (2, True)
    assert plugin.transformer_cls_names_to_wrap == ["GPT2Block"]


def test_accelerate_reads_the_configuration_of_several_gpus() -> None:
    environment = launcher_environment("ddp.yaml")
    assert "ACCELERATE_USE_FSDP" not in environment
    assert environment["ACCELERATE_MIXED_PRECISION"] in PRECISIONS
    described = load_config_from_file(str(CONFIGURATIONS / "ddp.yaml"))
    assert (described.distributed_type, described.num_processes) == (DistributedType.MULTI_GPU, 2)


if __name__ == "__main__":
    train_as_rank(int(sys.argv[1]), Path(sys.argv[2]))
