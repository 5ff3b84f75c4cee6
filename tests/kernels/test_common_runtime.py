"""The choice of an implementation, and the checks that operators share."""

import pytest
import torch

from palaestra.kernels._common import runtime, validate

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_auto_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "HAS_TRITON", True)
    assert runtime.choose("auto", CPU) == "reference"
    assert runtime.choose("auto", CUDA) == "triton"
    monkeypatch.setattr(runtime, "HAS_TRITON", False)
    assert runtime.choose("auto", CUDA) == "reference"


def test_a_named_implementation_never_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "HAS_TRITON", True)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert runtime.choose("triton", CUDA) == "triton"
    assert runtime.choose("reference", CUDA) == "reference"
    with pytest.raises(ValueError, match=r"impl: 'triton' needs tensors on CUDA"):
        runtime.choose("triton", CPU)
    monkeypatch.setattr(runtime, "HAS_TRITON", False)
    with pytest.raises(ValueError, match=r"impl: 'triton' needs the package"):
        runtime.choose("triton", CUDA)
    with pytest.raises(ValueError, match=r"impl: 'cuda' is not accepted"):
        runtime.choose("cuda", CUDA)


def test_the_interpreter_runs_kernels_on_cpu_with_one_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "HAS_TRITON", True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert runtime.INTERPRET
    assert runtime.choose("triton", CPU) == "triton"
    assert runtime.configs([1, 2]) == [1]
    monkeypatch.delenv("TRITON_INTERPRET")
    assert not runtime.INTERPRET
    assert runtime.configs([1, 2]) == [1, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_float32_and_those_of_float64_stay_float64(dtype: torch.dtype) -> None:
    assert runtime.acc_dtype(dtype) == torch.float32
    assert runtime.acc_dtype(torch.float64) == torch.float64


def test_checks_name_the_argument_and_what_is_accepted() -> None:
    x = torch.zeros(2, 3)
    validate.check_layout("q", x, "[B, K]")
    with pytest.raises(ValueError, match=r"^q: float32 \[2, 3\] is not a float tensor \[B, H, K\]"):
        validate.check_layout("q", x, "[B, H, K]")
    with pytest.raises(ValueError, match=r"^q: int64"):
        validate.check_layout("q", x.long(), "[B, K]")
    validate.check_tensor("k", x, (2, 3), torch.float32, CPU)
    with pytest.raises(
        ValueError, match=r"^k: float32 \[2, 3\] is not float32 or float64 \[2, 4\]"
    ):
        validate.check_tensor("k", x, (2, 4), (torch.float32, torch.float64), CPU)
    with pytest.raises(ValueError, match=r"^k: it is on cpu"):
        validate.check_tensor("k", x, (2, 3), torch.float32, torch.device("meta"))
    with pytest.raises(ValueError, match=r"^chunk_size: 24"):
        validate.check_chunk_size(24)
    with pytest.raises(ValueError, match=r"^reset: float32 \[2\]"):
        validate.check_reset(torch.zeros(2), 2, CPU)
    assert validate.check_reset(None, 2, CPU).tolist() == [False, False]
