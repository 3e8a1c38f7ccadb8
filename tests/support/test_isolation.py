"""Modes of torch around and within computations on their own."""

from __future__ import annotations

import threading

import pytest
import torch

from latentrnn.support.isolation import RandomNumbers, isolated, isolation, random_state


def modes() -> tuple[bool, bool, bool, torch.dtype, str]:
    autocast = torch.is_autocast_enabled("cpu")
    device = torch.get_default_device().type
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast, torch.get_default_dtype(), device


ASIDE = (True, False, False, torch.float32, "cpu")


def test_the_outermost_block_sets_the_callers_modes_aside_and_gives_them_back() -> None:
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"):
        before = modes()
        assert before != ASIDE
        with isolation():
            assert modes() == ASIDE
        assert modes() == before
        assert isolated(modes)() == ASIDE


@pytest.mark.parametrize("inner", [isolation, lambda: random_state(0), lambda: RandomNumbers(0).drawn()])
def test_a_block_within_a_block_leaves_the_modes_that_were_set_there(inner: object) -> None:
    with isolation(), torch.no_grad():
        with inner():  # type: ignore[operator]
            assert not torch.is_grad_enabled()
        assert not isolated(torch.is_grad_enabled)()
    with isolation():
        with torch.inference_mode(), inner():  # type: ignore[operator]
            assert torch.is_inference_mode_enabled()
        assert modes() == ASIDE


def test_a_block_after_one_that_raised_is_the_outermost_again() -> None:
    with pytest.raises(RuntimeError, match="within"), isolation(), isolation():
        raise RuntimeError("within")
    with torch.no_grad():
        assert isolated(modes)() == ASIDE


def test_another_threads_block_is_not_within_this_ones() -> None:
    found = []

    def other() -> None:
        with torch.no_grad():
            found.append(isolated(modes)())

    thread = threading.Thread(target=other)
    with isolation(), torch.no_grad():
        thread.start()
        thread.join(0.05)
        assert thread.is_alive()  # it waits
    thread.join()
    assert found == [ASIDE]
