"""Row-sparse Adam equals PyTorch's dense Adam, which moves every row in every step."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

from cllm4rec.data.dataset import Dataset
from cllm4rec.data.synthetic import taste_world
from cllm4rec.models.cllm4rec.config import CLLM4RecConfig
from cllm4rec.models.cllm4rec.id_embeddings import IDEmbeddings
from cllm4rec.models.cllm4rec.recommender import CLLM4Rec
from cllm4rec.training.config import TrainConfig
from cllm4rec.training.optimizer import Optimizer
from cllm4rec.training.row_adam import EmbeddingTable, RowAdam, coalesced

N_ROWS, WIDTH, STEPS = 40, 6, 600


def table_of(weights: Tensor) -> EmbeddingTable:
    """A table with row-sparse gradients."""
    table = EmbeddingTable(*weights.shape)
    table.sparse = True
    with torch.no_grad():
        table.weight.copy_(weights)
    return table


def rate_of(step: int) -> float:
    """A learning rate that warms up like that of the loop."""
    return 0.01 * min(1.0, (step + 1) / 50)


def reads(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Rows that each step reads, and their gradients up to a factor.

    Steps read rows repeatedly or none at all. Most rows are not read for hundreds of steps.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = []
    for step in range(STEPS):
        n = int(torch.randint(0, 5, (1,), generator=generator))
        rows = torch.randint(0, N_ROWS if step % 200 < 60 else 4, (n,), generator=generator)
        steps.append((rows, torch.randn(n, WIDTH, generator=generator)))
    return steps


class TableNet(nn.Module):
    """A network that is a table."""

    def __init__(self, table: EmbeddingTable) -> None:
        super().__init__()
        self.table = table

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"table": [self.table.weight]}


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-7])
@pytest.mark.parametrize("rows_at_once", [7, 1 << 14])
def test_rows_move_as_under_dense_adam(
    size: float, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of any size, down to epsilon. The tolerance is the rounding error of float32."""
    monkeypatch.setattr("cllm4rec.training.row_adam.ROWS_AT_ONCE", rows_at_once)
    weights = torch.randn(N_ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    table, dense = table_of(weights), nn.Parameter(weights.double())
    row_adam, dense_adam = RowAdam(table), torch.optim.AdamW([dense], weight_decay=0.0)
    for step, (rows, slopes) in enumerate(reads(2)):
        ((table(rows) * slopes).sum() * size).backward()  # type: ignore[no-untyped-call]
        assert table.weight.grad is not None
        table.weight.grad = coalesced([table.weight.grad])
        row_adam.step(rate_of(step))
        table.weight.grad = None
        ((dense[rows] * slopes.double()).sum() * size).backward()  # type: ignore[no-untyped-call]
        dense_adam.param_groups[0]["lr"] = rate_of(step)
        dense_adam.step()
        dense_adam.zero_grad()
        tolerance = 3e-4 * rate_of(99) * 10
        torch.testing.assert_close(table.weight[rows].double(), dense[rows], rtol=0, atol=tolerance)
    assert (row_adam.done < STEPS).sum() > N_ROWS / 2, "most rows have missed steps"
    row_adam.apply_missed_steps()
    assert (dense - weights).abs().max() > 0.1
    torch.testing.assert_close(table.weight.double(), dense, rtol=0, atol=3e-5)


def test_missed_steps_by_hand() -> None:
    """A gradient of 2, then two steps without: each moves the row by rate * m_hat / sqrt(v_hat)."""
    table = table_of(torch.tensor([[1.0], [5.0]]))
    adam = RowAdam(table)
    (2 * table(torch.tensor([0])).sum()).backward()
    table.weight.grad = coalesced([table.weight.grad])
    adam.step(0.1)
    table.weight.grad = None
    for rows in (torch.tensor([1]), torch.tensor([1])):
        (0 * table(rows).sum()).backward()
        table.weight.grad = coalesced([table.weight.grad])
        adam.step(0.1)
        table.weight.grad = None
    m, v, x = 0.0, 0.0, 1.0
    for step, slope in enumerate((2.0, 0.0, 0.0), start=1):
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        x -= 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)) ** 0.5 + 1e-8)
    assert table.weight[0].item() == pytest.approx(0.9), "not read since"
    assert table(torch.tensor([0])).item() == pytest.approx(x, rel=1e-6)
    assert table.weight[1].item() == 5.0


def test_two_processes_that_read_other_rows_keep_the_same_table() -> None:
    """A row read by the other process first makes up for the steps that it missed here."""
    weights = torch.randn(N_ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    alone, shared = table_of(weights), [table_of(weights) for _ in range(2)]
    row_adam = RowAdam(alone)
    optimizers = [Optimizer(TableNet(table), Accelerator(cpu=True)) for table in shared]
    for step, both_reads in enumerate(zip(reads(4)[:200], reads(5)[:200], strict=True)):
        for (rows, slopes), optimizer in zip(both_reads, optimizers, strict=True):
            (optimizer.net.table(rows) * slopes).sum().backward()
            optimizer.collect_row_gradients()
            (alone(rows) * slopes).sum().backward()
        total = coalesced(
            [gradient for optimizer in optimizers for gradient in optimizer._row_gradients["table"]]
        )
        for optimizer in optimizers:
            optimizer.accelerator = SimpleNamespace(num_processes=2)
            optimizer._exchanged = lambda gradient, total=total: total
            optimizer.sum_row_gradients()
            optimizer.step(rate_of(step))
        alone.weight.grad = coalesced([alone.weight.grad])
        row_adam.step(rate_of(step))
        alone.weight.grad = None
    for adam in (row_adam, *(optimizer.row_adams["table"] for optimizer in optimizers)):
        adam.apply_missed_steps()
    assert torch.equal(shared[0].weight, shared[1].weight)
    torch.testing.assert_close(shared[0].weight, alone.weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_processes", [1, 2])
def test_tables_of_launched_processes_start_as_that_of_the_first(
    n_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Initial tables computed on different processors may differ by rounding. A launcher may start one."""
    table, first = table_of(torch.zeros(N_ROWS, WIDTH)), torch.randn(N_ROWS, WIDTH)
    monkeypatch.setattr("cllm4rec.training.optimizer.broadcast", lambda weights: weights.copy_(first))
    launched = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU, num_processes=n_processes)
    Optimizer(TableNet(table), launched)
    assert torch.equal(table.weight, first)


def test_loaded_moments_resume_bit_for_bit() -> None:
    weights = torch.randn(N_ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    table = table_of(weights)
    adam = RowAdam(table)

    def make(table: EmbeddingTable, adam: RowAdam, steps: range) -> None:
        for step in steps:
            rows, slopes = reads(3)[step]
            (table(rows) * slopes).sum().backward()  # type: ignore[no-untyped-call]
            table.weight.grad = coalesced([table.weight.grad])
            adam.step(rate_of(step))
            table.weight.grad = None

    make(table, adam, range(20))
    saved, kept = copy.deepcopy(adam.moments()), table.weight.detach().clone()
    make(table, adam, range(20, 40))
    again = table_of(kept)
    other = RowAdam(again)
    other.load_moments(saved)
    make(again, other, range(20, 40))
    adam.apply_missed_steps()
    other.apply_missed_steps()
    assert torch.equal(table.weight, again.weight)


def test_a_sum_of_two_gradients_has_each_row_once_in_either_order() -> None:
    table = table_of(torch.zeros(9, 2))
    gradients = []
    for rows in ([3, 1, 3], [1, 8]):
        table(torch.tensor(rows)).square().sum().backward()
        (table(torch.tensor(rows)) * torch.arange(2.0)).sum().backward()
        gradients.append(coalesced([table.weight.grad]))
        table.weight.grad = None
    both, turned = coalesced(gradients), coalesced(gradients[::-1])
    assert both.indices().tolist() == [[1, 3, 8]]
    assert both.values().tolist() == [[0, 2], [0, 2], [0, 1]]
    assert torch.equal(both.to_dense(), turned.to_dense())


def test_a_closed_optimiser_leaves_the_table_alone() -> None:
    """All rows are up to date, and a later lookup changes none."""
    table = table_of(torch.ones(N_ROWS, WIDTH))
    adam = RowAdam(table)
    for rows in (torch.tensor([0, 1]), torch.tensor([2])):
        table(rows).sum().backward()  # type: ignore[no-untyped-call]
        assert table.weight.grad is not None
        table.weight.grad = coalesced([table.weight.grad])
        adam.step(0.1)
        table.weight.grad = None
    behind = table.weight.detach().clone()
    adam.close()
    assert (table.weight[:2] != behind[:2]).all(), "these rows missed the second step"
    adam.n_steps += 1
    closed = table.weight.detach().clone()
    table(torch.arange(N_ROWS))
    assert torch.equal(table.weight, closed)


def dense_tables(made: Callable[..., None]) -> Callable[..., None]:
    """IDEmbeddings.__init__ that leaves all gradients dense."""

    def init(self: IDEmbeddings, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        self.users.sparse = False

    return init


def test_training_gives_what_dense_adam_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same epochs with row-sparse and with dense gradients: few epochs, as rounding errors grow."""
    world = taste_world(0, n_users=60, n_items=40)
    dataset = Dataset.from_frame(world.events, world.items, split="random")
    found = []
    for sparse in (True, False):
        if not sparse:
            monkeypatch.setattr(IDEmbeddings, "__init__", dense_tables(IDEmbeddings.__init__))
        model = CLLM4Rec(CLLM4RecConfig(start="random", content_warmup=0))
        model.fit_stage(dataset.train, "pretrain", TrainConfig(epochs=2, batch_size=4, warmup_steps=5))
        assert model.net.collaborative.users.sparse == sparse
        found.append([table.whole() for table in (model.net.collaborative, model.net.content)])
    for sparse_table, dense_table in zip(*found, strict=True):
        assert ((sparse_table - dense_table).norm() / dense_table.norm()).item() < 2e-5
