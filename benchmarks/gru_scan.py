"""Time of one forward and backward pass of the gated recurrent unit, in ms, against two peers.

    python benchmarks/gru_scan.py --threads 1

Prints for each shape: `chunk_gru` without resets, with 2 % of steps resetting, `torch.nn.GRU`
(which knows no resets), and a loop over `torch.nn.GRUCell` with resets. Contenders take turns and
the best of all rounds counts, so that other load on the machine strikes all alike.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from palaestra.kernels.gru import chunk_gru

T, C = 50, 14


def contenders(B: int, H: int) -> dict[str, Callable[[], Tensor]]:
    gru, cell = torch.nn.GRU(C, H, batch_first=True), torch.nn.GRUCell(C, H)
    weights = [gru.weight_ih_l0, gru.weight_hh_l0, gru.bias_ih_l0, gru.bias_hh_l0]
    x, some = torch.randn(B, T, C), torch.rand(B, T) < 0.02

    def loop() -> Tensor:
        states, h_t = [], torch.zeros(B, H)
        for x_t, reset_t in zip(x.unbind(1), some.unbind(1), strict=True):
            h_t = cell(x_t, h_t.masked_fill(reset_t.unsqueeze(1), 0))
            states.append(h_t)
        return torch.stack(states, 1)

    return {
        "chunk_gru": lambda: chunk_gru(x, *weights)[0],
        "chunk_gru, resets": lambda: chunk_gru(x, *weights, reset=some)[0],
        "nn.GRU": lambda: gru(x)[0],
        "cell loop, resets": loop,
    }


def measure(B: int, H: int, rounds: int) -> dict[str, float]:
    gradient = torch.randn(B, T, H)
    runs = contenders(B, H)
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run().backward(gradient)
            best[name] = min(best[name], 1e3 * (time.perf_counter() - begin))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, threads {arguments.threads}, T = {T}, inputs {C} wide")
    for H in (64, 128):
        for B in (64, 256, 1024):
            times = measure(B, H, arguments.rounds)
            print(f"H {H:4} B {B:5}  " + "  ".join(f"{n} {t:.1f}" for n, t in times.items()))


if __name__ == "__main__":
    main()
