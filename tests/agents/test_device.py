"""Devices by name: what is accepted here, and what is said of what is not."""

import pytest
import torch

from palaestra.agents.device import resolve_device, send
from palaestra.errors import UserError


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert resolve_device("auto") == "cpu"
    gpus(monkeypatch, 2)
    assert resolve_device("auto") == "cuda"


def test_a_gpu_that_is_there_is_accepted_by_name_and_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpus(monkeypatch, 2)
    assert [resolve_device(name) for name in ("cpu", "cuda", "cuda:0", "cuda:1")] == [
        "cpu",
        "cuda",
        "cuda:0",
        "cuda:1",
    ]


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_is_refused_by_name_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    gpus(monkeypatch, 0)
    with pytest.raises(UserError, match=f"device: '{name}' is not accepted.*'cpu' and 'auto' are"):
        resolve_device(name)


def test_a_number_beyond_the_last_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(UserError, match=r"device: 'cuda:2' .* to 'cuda:1' are"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "CUDA", "cuda:", "cuda:-1", "cpu:0", "", "meta"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="'auto', 'cpu', 'cuda' and 'cuda:N' are"):
        resolve_device(name)


def test_what_is_there_already_is_not_copied() -> None:
    tensor = torch.zeros(3)
    assert send(tensor, torch.device("cpu")) is tensor
