"""AdamW for a network: dense where a step reads a whole parameter, row by row where it reads few rows of a table."""

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, pad_across_processes
from torch import Tensor, nn

from cllm4rec.training.row_adam import EmbeddingTable, RowAdam, coalesced


class Optimizer:
    """Of the trained parameters of a network, which is wrapped here for several processes.

    Attributes:
        wrapped: the network as Accelerate prepared it.
    """

    def __init__(self, net: Any, accelerator: Accelerator) -> None:
        self.net, self.accelerator = net, accelerator
        tables = {
            name: module
            for name, module in net.named_modules()
            if isinstance(module, EmbeddingTable) and module.sparse
        }
        self.rows = {name: RowAdam(table) for name, table in tables.items() if table.weight.requires_grad}
        self._parts: dict[str, list[Tensor]] = {name: [] for name in self.rows}
        apart = {id(one.table.weight) for one in self.rows.values()}
        own = [
            [p for p in group if p.requires_grad and id(p) not in apart]
            for group in net.parameter_groups().values()
        ]
        groups = [{"params": group} for group in own if group]
        if accelerator.num_processes > 1:  # their gradients are exchanged here: only rows that were read
            ignored = [f"{name}.weight" for name in self.rows]
            nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(net, ignored)
            for own_rows in self.rows.values():  # so DDP does not start them alike
                broadcast(own_rows.table.weight.data)
        self.raw = torch.optim.AdamW(groups, weight_decay=0.0, fused=True) if groups else None
        self.dense: Any = None
        self.wrapped = net
        if groups:
            self.wrapped, self.dense = accelerator.prepare(net, self.raw)

    def take_rows(self) -> None:
        """After each micro-batch's backward: the gradients of tables, apart, so that micro-batches add up like processes."""
        for name, own in self.rows.items():
            gradient = own.table.weight.grad
            if gradient is not None:
                self._parts[name].append(coalesced([gradient]))
                own.table.weight.grad = None

    def gather_rows(self) -> None:
        """After the last micro-batch: the gradients of tables, summed over micro-batches and processes."""
        for name, own in self.rows.items():
            parts, self._parts[name] = self._parts[name], []
            if not parts:  # of a table that this objective does not train: the same on all processes
                continue
            gradient = coalesced(parts)
            if self.accelerator.num_processes > 1:
                gradient = coalesced([self._exchanged(gradient)])
                own.apply_missed_steps(gradient.indices()[0])  # those that other processes read, too
            own.table.weight.grad = gradient

    def _exchanged(self, gradient: Tensor) -> Tensor:
        """The mean over processes of a sparse gradient, as that of the other parameters is one."""
        n = self.accelerator.num_processes
        rows = pad_across_processes(gradient.indices()[0], pad_index=-1)
        values = pad_across_processes(gradient.values())
        rows, values = self.accelerator.gather(rows), self.accelerator.gather(values)
        real = rows >= 0
        return torch.sparse_coo_tensor(
            rows[None, real], values[real] / n, gradient.shape, check_invariants=False
        )

    def clip(self, most: float) -> Tensor:
        """Scale the gradients down to a norm of `most`; the norm they had."""
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        values = [one.values() if one.is_sparse else one for one in gradients]
        norm = nn.utils.get_total_norm(values)
        scale = (most / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(values, scale)
        return norm

    def step(self, rate: float) -> None:
        """One step at a learning rate; the gradients are gone then."""
        if self.dense is not None:
            for group in self.dense.param_groups:
                group["lr"] = rate
            self.dense.step()
            self.dense.zero_grad()
        for own in self.rows.values():
            if own.table.weight.grad is not None:
                own.step(rate)
                own.table.weight.grad = None

    def apply_missed_steps(self) -> None:
        """Before whole tables are read: all rows make the steps they missed."""
        for own in self.rows.values():
            own.apply_missed_steps()

    def close(self) -> None:
        """Nothing is to be trained any more: all rows make the steps they missed."""
        self.apply_missed_steps()
        for own in self.rows.values():
            own.table.before_lookup = None

    def state(self) -> dict[str, Tensor]:
        """The moments, by name."""
        dense = {} if self.raw is None else self.raw.state_dict()["state"]
        flat = {f"{number}.{name}": one for number, own in dense.items() for name, one in own.items()}
        return flat | {
            f"{table}.{name}": one for table, own in self.rows.items() for name, one in own.state().items()
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore the moments that `state` gave.

        Raises:
            ValueError: they do not fit the parameters.
        """
        moments: dict[int, dict[str, Tensor]] = {}
        tables: dict[str, dict[str, Tensor]] = {table: {} for table in self.rows}
        for key, tensor in state.items():
            of, _, name = key.rpartition(".")
            if of in tables:
                tables[of][name] = tensor
            elif of.isdecimal():
                moments.setdefault(int(of), {})[name] = tensor
            else:
                raise ValueError(f"the moments of {key!r} belong to no parameter")
        self._check(moments, tables)
        if self.raw is not None:
            self.raw.load_state_dict(
                {"state": moments, "param_groups": self.raw.state_dict()["param_groups"]}
            )
        for table, own in tables.items():
            self.rows[table].load(own)

    def _check(self, moments: dict[int, dict[str, Tensor]], tables: dict[str, dict[str, Tensor]]) -> None:
        """Raise ValueError unless moments have the shapes of their parameters."""
        parameters = [p for group in (self.raw.param_groups if self.raw else []) for p in group["params"]]
        shapes = {number: p.shape for number, p in enumerate(parameters)}
        for number, named in moments.items():
            wrong = named.keys() != {"step", "exp_avg", "exp_avg_sq"} or number not in shapes
            if wrong or any(one.shape != shapes[number] for name, one in named.items() if name != "step"):
                raise ValueError(f"the moments of parameter {number} do not have its shape")
        for table, named in tables.items():
            weight = self.rows[table].table.weight
            shape = {"mean": weight.shape, "square": weight.shape, "done": weight.shape[:1]}
            if named and (
                named.keys() != {*shape, "rates"}
                or any(named[name].shape != size for name, size in shape.items())
            ):
                raise ValueError(f"the moments of {table} do not have its shape")
