"""AdamW for a network: dense, but row by row for embedding tables of which a step reads few rows."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, broadcast, pad_across_processes
from torch import Tensor, nn

from cllm4rec.training.row_adam import EmbeddingTable, RowAdam, coalesced

DENSE_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}  # names that torch.optim.AdamW gives them
NORM_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


class Optimizer:
    """AdamW of the trained parameters of a network, which is wrapped here for several processes.

    Attributes:
        row_adams: name of each trained sparse table -> its optimiser.
        raw: optimiser of the other parameters; None if there are none.
        dense: `raw` as Accelerate prepared it.
        wrapped: the network as Accelerate prepared it.
    """

    def __init__(self, net: Any, accelerator: Accelerator) -> None:
        self.net, self.accelerator = net, accelerator
        self.row_adams = {
            name: RowAdam(module)
            for name, module in net.named_modules()
            if isinstance(module, EmbeddingTable) and module.sparse and module.weight.requires_grad
        }
        self._row_gradients: dict[str, list[Tensor]] = {name: [] for name in self.row_adams}
        if accelerator.distributed_type != DistributedType.NO:  # a launcher may start one process
            self._exclude_tables_from_ddp()
        sparse = {id(adam.table.weight) for adam in self.row_adams.values()}
        groups = [
            {"params": [p for p in group if p.requires_grad and id(p) not in sparse]}
            for group in net.parameter_groups().values()
        ]
        groups = [group for group in groups if group["params"]]
        self.raw = torch.optim.AdamW(groups, weight_decay=0.0, fused=True) if groups else None
        self.dense: Any = None
        self.wrapped = net
        if groups:
            self.wrapped, self.dense = accelerator.prepare(net, self.raw)

    def _exclude_tables_from_ddp(self) -> None:
        """Exchange the gradients of sparse tables here: only the rows that were read.

        DDP then does not copy the initial tables of the first process to the others, so that is done too.
        """
        ignored = [f"{name}.weight" for name in self.row_adams]
        nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.net, ignored)
        for adam in self.row_adams.values():
            broadcast(adam.table.weight.data)

    def collect_row_gradients(self) -> None:
        """Set the gradients of sparse tables aside after the backward pass of a micro-batch.

        `sum_row_gradients` adds those of micro-batches as it adds those of processes.
        """
        for name, adam in self.row_adams.items():
            gradient = adam.table.weight.grad
            if gradient is not None:
                self._row_gradients[name].append(coalesced([gradient]))
                adam.table.weight.grad = None

    def sum_row_gradients(self) -> None:
        """Give sparse tables their gradients, summed over micro-batches and processes."""
        for name, adam in self.row_adams.items():
            gradients, self._row_gradients[name] = self._row_gradients[name], []
            if not gradients:  # the objective does not train this table, on any process
                continue
            gradient = coalesced(gradients)
            if self.accelerator.num_processes > 1:
                gradient = coalesced([self._exchanged(gradient)])
                adam.apply_missed_steps(gradient.indices()[0])  # rows that only other processes read
            adam.table.weight.grad = gradient

    def _exchanged(self, gradient: Tensor) -> Tensor:
        """The mean of a sparse gradient over the processes, as DDP takes means of dense gradients."""
        n = self.accelerator.num_processes
        rows = pad_across_processes(gradient.indices()[0], pad_index=-1)
        values = pad_across_processes(gradient.values())
        rows, values = self.accelerator.gather(rows), self.accelerator.gather(values)
        real = rows >= 0
        return torch.sparse_coo_tensor(
            rows[None, real], values[real] / n, gradient.shape, check_invariants=False
        )

    def clip(self, max_norm: float) -> Tensor:
        """Scale the gradients to a norm of at most `max_norm`.

        Returns:
            The norm before, a scalar.
        """
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        values = [gradient.values() if gradient.is_sparse else gradient for gradient in gradients]
        norm = nn.utils.get_total_norm(values)
        scale = (max_norm / (norm + NORM_EPSILON)).clamp(max=1.0)
        torch._foreach_mul_(values, scale)
        return norm

    def step(self, rate: float) -> None:
        """One step at a learning rate; it uses the gradients up."""
        if self.dense is not None:
            for group in self.dense.param_groups:
                group["lr"] = rate
            self.dense.step()
            self.dense.zero_grad()
        for adam in self.row_adams.values():
            if adam.table.weight.grad is not None:
                adam.step(rate)
                adam.table.weight.grad = None

    def apply_missed_steps(self) -> None:
        """Bring all rows of sparse tables up to date, before whole tables are read."""
        for adam in self.row_adams.values():
            adam.apply_missed_steps()

    def close(self) -> None:
        """End training: all rows are brought up to date, and the tables have no hooks any more."""
        for adam in self.row_adams.values():
            adam.close()

    def moments(self) -> dict[str, Tensor]:
        """The moments: number of a dense parameter or name of a sparse table, a dot, name of the moment."""
        dense = {} if self.raw is None else self.raw.state_dict()["state"]
        of_tables = {name: adam.moments() for name, adam in self.row_adams.items()}
        return {
            f"{owner}.{name}": moment
            for owner, moments in (dense | of_tables).items()
            for name, moment in moments.items()
        }

    def load_moments(self, moments: dict[str, Tensor]) -> None:
        """Restore what `moments` gave.

        Raises:
            ValueError: the moments do not fit the parameters.
        """
        dense: dict[int, dict[str, Tensor]] = {}
        of_tables: dict[str, dict[str, Tensor]] = {name: {} for name in self.row_adams}
        for key, moment in moments.items():
            owner, _, name = key.rpartition(".")
            if owner in of_tables:
                of_tables[owner][name] = moment
            elif owner.isdecimal():
                dense.setdefault(int(owner), {})[name] = moment
            else:
                raise ValueError(f"the moments of {key!r} belong to no parameter")
        self._check_dense(dense)
        for table, named in of_tables.items():
            self._check_table(table, named)
        if self.raw is not None:
            self.raw.load_state_dict({"state": dense, "param_groups": self.raw.state_dict()["param_groups"]})
        for table, named in of_tables.items():
            self.row_adams[table].load_moments(named)

    def _check_dense(self, moments: dict[int, dict[str, Tensor]]) -> None:
        """Raise ValueError unless the moments of dense parameters have their names and shapes."""
        groups = self.raw.param_groups if self.raw is not None else []
        shapes = dict(enumerate(p.shape for group in groups for p in group["params"]))
        for number, named in moments.items():
            complete = number in shapes and named.keys() == DENSE_MOMENTS
            if not complete or any(
                moment.shape != shapes[number] for name, moment in named.items() if name != "step"
            ):
                raise ValueError(f"the moments of parameter {number} do not have its shape")

    def _check_table(self, table: str, moments: dict[str, Tensor]) -> None:
        """Raise ValueError unless the moments of a table, if any, have its shape."""
        shape = self.row_adams[table].table.weight.shape
        shapes = {"mean": shape, "square": shape, "done": shape[:1]}
        complete = moments.keys() == {*shapes, "rates"}
        if moments and not (
            complete and all(moments[name].shape == expected for name, expected in shapes.items())
        ):
            raise ValueError(f"the moments of {table} do not have its shape")
