"""A table of ID embeddings is read and trained like a dense matrix."""

import torch

from cllm4rec.models.cllm4rec.id_embeddings import IDEmbeddings


def test_a_table_of_ids_reads_users_and_items_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(12, 3, generator=generator)
    table = IDEmbeddings(5, 7, 3)
    table.fill(whole)
    assert torch.equal(table.whole(), whole)
    dense = whole.clone().requires_grad_()
    for numbers in ([11, 0, 4, 5, 0, 7], [[6, 2], [2, 3]], [8], []):
        ids = torch.tensor(numbers, dtype=torch.int64)
        weights = torch.randn(*ids.shape, 3, generator=generator)
        assert torch.equal(table[ids], whole[ids])
        (table[ids] * weights).sum().backward()
        (dense[ids] * weights).sum().backward()
    users, items = table.users.weight.grad, table.items.weight.grad
    assert users.is_sparse and not items.is_sparse
    torch.testing.assert_close(torch.cat([users.to_dense(), items]), dense.grad)
