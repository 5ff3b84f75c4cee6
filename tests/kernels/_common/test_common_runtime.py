"""The choice of an implementation, and the checks that operators share."""

import re
import subprocess
import sys
from importlib.metadata import requires

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


def test_a_step_is_the_reference_where_a_gradient_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "choose", lambda impl, device: "triton")
    x, y = torch.zeros(1), torch.zeros(1, requires_grad=True)
    assert runtime.choose_step("auto", x, None) == "triton"
    assert runtime.choose_step("auto", x, None, y) == "reference"
    with pytest.raises(ValueError, match="impl: 'triton' gives no gradients of a step"):
        runtime.choose_step("triton", x, y)
    with torch.no_grad():
        assert runtime.choose_step("triton", x, y) == "triton"


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


def test_kept_steps_can_be_used_in_a_backward_pass_after_inference() -> None:
    with torch.inference_mode():
        runtime.steps(7, CPU)
    x = torch.ones(7, requires_grad=True)
    (x * runtime.steps(7, CPU)).sum().backward()
    assert torch.equal(x.grad, torch.arange(7.0))


def test_types_stay_where_autocast_would_change_them() -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with runtime.no_autocast(CPU):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


def test_marks_and_values_are_found() -> None:
    assert runtime.is_none(torch.zeros(3, dtype=torch.bool))
    assert not runtime.is_none(torch.tensor([False, True]))
    assert runtime.may_hold(torch.tensor([3, 5]), 5)
    assert not runtime.may_hold(torch.tensor([3, 5]), 4)


def test_the_operators_need_no_package_but_torch_and_triton() -> None:
    others = [name for name in dependencies() if name not in ("numpy", "torch", "triton")]
    assert {"gymnasium", "pydantic", "ray"} <= set(others)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others}))\n"
        "import torch\n"
        "from palaestra.kernels import attention, delta, gla, mesa, rat\n"
        "x = torch.ones(1, 3, 2, 4)\n"
        "gla.chunk_gla(x, x, x, None), rat.chunk_rat(x, x, x, x.sigmoid())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def dependencies() -> list[str]:
    """Modules of the packages that Palaestra itself asks for."""
    asked = [line for line in requires("palaestra") or [] if "extra ==" not in line]
    names = [re.split(r"[^\w.-]", line)[0] for line in asked]
    return ["yaml" if name.lower() == "pyyaml" else name.replace("-", "_") for name in names]
