"""The count of saved tensors: what is alive, the most at any time, and that nothing is kept for ever."""

from __future__ import annotations

import torch

from vmae.cost import saved_tensors


def test_what_the_graph_holds_counts_until_the_graph_is_freed():
    x = torch.ones(1000, requires_grad=True)
    with saved_tensors() as saved:
        first = x.exp()
        second = first.exp()
        assert saved.now == 8000
        del first
        second.sum().backward()
        assert (saved.now, saved.peak) == (0, 8000)


def test_an_output_that_is_saved_does_not_keep_its_own_graph():
    x = torch.ones(1000, requires_grad=True)
    with saved_tensors() as saved:
        for _ in range(3):
            x.exp()
    assert (saved.now, saved.peak) == (0, 4000)


def test_one_storage_counts_once_and_weights_do_not():
    x, weight = torch.ones(10, 10, requires_grad=True), torch.ones(10, 10, requires_grad=True)
    with saved_tensors([weight]) as saved:
        product = x @ weight + x.t() @ weight
    assert saved.peak == 400
    del product
    assert saved.now == 0
