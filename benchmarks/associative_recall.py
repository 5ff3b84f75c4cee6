"""Multi-query associative recall: what each layer's memory holds, at the same width and budget.

    python benchmarks/associative_recall.py                        # resumes where it stopped
    python benchmarks/associative_recall.py --layers attention,mesa --seeds 3
    python benchmarks/associative_recall.py --updates 3000 --layers local+linear --out long.json

The language model of two blocks (palaestra/policies/language/) reads the sequences of
associative_data.py. Everything is the same for all rows but the mixers: width, heads, data, number
of updates and tokens, AdamW with warm-up and cosine, clipped gradients, and a course from short to
long sequences. In turn an update has sequences with all, half or a quarter of its stage's most
pairs. The loss is the cross-entropy at the queries. Fresh sequences of 256 tokens are the test.

In most rows both blocks have the mixer that is named. Mixers see neighbours in different ways:
attention by rotary positions, the delta rule and Mesa by a convolution of 4 steps before the
memory, linear attention not at all without decay. Rows named `-conv` have the same convolution.
Rows named `local+` compare the memories alone: the first block is attention over 4 steps in all of
them, the second the mixer.

`linear` is GLA without decay, `attention` sees all steps. A chunk of RAT has 16 steps and mixes
eight pairs; in `rat-2` it has 2 steps and holds a pair. `rat-swa` is attention over 16 steps, then
RAT.

A run that is finished is kept in the results and not repeated. Of several learning rates a row
shows the one whose last training batches were answered best, before the test.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from associative_data import Recall, Vocabulary, draw
from associative_report import Point, Run, picture, table
from torch import Tensor
from torch.nn.functional import cross_entropy

from palaestra.kernels.verify.check import machine
from palaestra.policies.language import IGNORED, PalaestraForCausalLM
from palaestra.policies.language.config import PalaestraConfig

RESULTS = Path(__file__).parent / "results"

VOCABULARY = Vocabulary(keys=128, values=128)
LENGTH = 256
TESTED_PAIRS = (8, 16, 32, 64)
TESTED_SEQUENCES = 256
WIDTH, HEADS = 64, 2
LOCAL = 4
"""Steps that the attention of `local+` rows sees: as many as the short convolutions."""
WARM_UP = 100
CLIP, WEIGHT_DECAY = 1.0, 0.1
NOTED = 30
"""Updates whose mean is a point of the learning curve; as often each number of pairs."""


class Stage(NamedTuple):
    """A part of the training; every stage has updates of 2,048 tokens."""

    share: float
    length: int
    pairs: int
    batch: int


STAGES = (Stage(0.4, 64, 16, 32), Stage(0.2, 128, 32, 16), Stage(0.4, LENGTH, 64, 8))

FULL = {"attention": {"window": LENGTH}}
NO_DECAY = {"gla": {"decay": "none"}}
LOCAL_FIRST = {"attention": {"window": LOCAL}}

CONTENDERS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "attention": (["attention"] * 2, FULL),
    "linear": (["gla"] * 2, NO_DECAY),
    "linear-conv": (["gla"] * 2, {"gla": {"decay": "none", "convolution": True}}),
    "gla": (["gla"] * 2, {}),
    "gla-conv": (["gla"] * 2, {"gla": {"convolution": True}}),
    "deltanet": (["deltanet"] * 2, {}),
    "gated-deltanet": (["gated-deltanet"] * 2, {}),
    "mesa": (["mesa"] * 2, {}),
    "rat": (["rat"] * 2, {}),
    "rat-2": (["rat"] * 2, {"rat": {"chunk": 2}}),
    "rat-swa": (["attention", "rat"], {}),
    "gru": (["gru"] * 2, {}),
    "lstm": (["lstm"] * 2, {}),
    "local+linear": (["attention", "gla"], LOCAL_FIRST | NO_DECAY),
    "local+gla": (["attention", "gla"], LOCAL_FIRST),
    "local+deltanet": (["attention", "deltanet"], LOCAL_FIRST),
    "local+gated-deltanet": (["attention", "gated-deltanet"], LOCAL_FIRST),
    "local+mesa": (["attention", "mesa"], LOCAL_FIRST),
}
"""Mixers of the two blocks, and their options."""


def make_model(name: str, seed: int) -> PalaestraForCausalLM:
    layers, options = CONTENDERS[name]
    config = PalaestraConfig(
        vocab_size=VOCABULARY.size, width=WIDTH, heads=HEADS, layers=layers, **options
    )
    torch.manual_seed(seed)
    return PalaestraForCausalLM(config).train()


def state_size(model: PalaestraForCausalLM) -> int:
    """Return how many numbers a row's memory has, counters of steps aside."""
    tensors = model.initial_state(1).tensors().values()
    return sum(x.numel() for x in tensors if x.is_floating_point())


def answers(model: PalaestraForCausalLM, batch: Recall) -> tuple[Tensor, Tensor]:
    """Return the logits at the queries, `[queries, vocabulary]`, and their targets."""
    asked = batch.targets != IGNORED
    output = model(batch.tokens, output_hidden_states=True, logits_to_keep=1, use_cache=False)
    return model.lm_head(output.hidden_states[-1][asked]), batch.targets[asked]


def schedule(update: int, updates: int) -> float:
    """Return the factor of the learning rate: linear warm-up, cosine to a hundredth."""
    cosine = 0.5 * (1 + math.cos(math.pi * update / updates))
    return min(1.0, (update + 1) / WARM_UP) * (0.01 + 0.99 * cosine)


def plan(updates: int) -> list[Stage]:
    """Return the stage of every update, with its number of pairs."""
    course: list[Stage] = []
    done = 0.0
    for stage in STAGES:
        done += stage.share
        while len(course) < round(done * updates):
            course.append(stage._replace(pairs=stage.pairs >> len(course) % 3))
    return course


def train(name: str, seed: int, rate: float, updates: int) -> Run:
    """Train a model and test it."""
    model = make_model(name, seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    wall, cpu = time.perf_counter(), time.process_time()
    curve = fit(model, plan(updates), rate, generator, f"{name} seed {seed} rate {rate:g}")
    return Run(
        layer=name,
        seed=seed,
        rate=rate,
        parameters=sum(p.numel() for p in model.parameters()),
        state=state_size(model),
        seconds=time.perf_counter() - wall,
        cpu_seconds=time.process_time() - cpu,
        curve=curve,
        accuracy={str(pairs): test(model, pairs) for pairs in TESTED_PAIRS},
    )


def fit(
    model: PalaestraForCausalLM,
    course: Sequence[Stage],
    rate: float,
    generator: torch.Generator,
    label: str,
) -> list[Point]:
    """Train the model, an update for each stage in `course`; return the learning curve."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    start = time.perf_counter()
    curve: list[Point] = []
    losses: list[float] = []
    rights: list[float] = []
    for update, stage in enumerate(course, 1):
        batch = draw(VOCABULARY, stage.batch, stage.length, stage.pairs, generator)
        logits, targets = answers(model, batch)
        loss = cross_entropy(logits, targets)
        optimizer.param_groups[0]["lr"] = rate * schedule(update - 1, len(course))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
        rights.append((logits.argmax(1) == targets).float().mean().item())
        if len(losses) == NOTED or update == len(course):
            curve.append((update, fmean(losses), fmean(rights)))
            losses.clear()
            rights.clear()
            tell(label, curve[-1], len(course), time.perf_counter() - start)
    return curve


def tell(label: str, point: Point, updates: int, seconds: float) -> None:
    update, loss, right = point
    left = seconds * (updates - update) / update
    print(
        f"{label}: update {update:,} of {updates:,}, loss {loss:.3f}, right {right:6.1%}, "
        f"{seconds:,.0f} s, about {left:,.0f} s left",
        flush=True,
    )


@torch.no_grad()
def test(model: PalaestraForCausalLM, pairs: int) -> float:
    """Return the share of right answers on fresh sequences, the same for all models."""
    model.eval()
    generator = torch.Generator().manual_seed(pairs)
    right = 0
    for _ in range(TESTED_SEQUENCES // 16):
        logits, targets = answers(model, draw(VOCABULARY, 16, LENGTH, pairs, generator))
        right += int((logits.argmax(1) == targets).sum())
    return right / (TESTED_SEQUENCES * pairs)


def settings(updates: int) -> dict[str, Any]:
    """Return what has to be equal for runs to be compared."""
    return {
        "updates": updates,
        "stages": [stage._asdict() for stage in STAGES],
        "vocabulary": VOCABULARY._asdict(),
        "length": LENGTH,
        "width": WIDTH,
        "heads": HEADS,
        "warm_up": WARM_UP,
        "clip": CLIP,
        "weight_decay": WEIGHT_DECAY,
        "tested_sequences": TESTED_SEQUENCES,
    }


def finished(file: Path, updates: int) -> list[Run]:
    """Return the runs in the results.

    Raises:
      SystemExit: they were made with other settings.
    """
    if not file.exists():
        return []
    report = json.loads(file.read_text())
    if report["settings"] != settings(updates):
        raise SystemExit(f"{file} has runs with other settings; choose another --out")
    return [Run(**run) for run in report["runs"]]


def ordered(runs: Sequence[Run]) -> list[Run]:
    order = list(CONTENDERS)
    return sorted(runs, key=lambda run: (order.index(run.layer), run.rate, run.seed))


def write(file: Path, updates: int, runs: Sequence[Run]) -> None:
    """Write the results: raw, as a table, as a picture."""
    report = {
        "machine": machine(),
        "settings": settings(updates),
        "contenders": CONTENDERS,
        "runs": [run._asdict() for run in runs],
    }
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.replace(file)
    file.with_suffix(".txt").write_text("\n".join(table(runs, settings(updates))) + "\n")
    picture(runs, [stage.share * updates for stage in STAGES], file.with_suffix(".png"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", default=",".join(CONTENDERS), help="names, with commas")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rates", default="3e-3", help="learning rates, with commas")
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=RESULTS / "associative_recall.json")
    options = parser.parse_args()
    names = options.layers.split(",")
    if unknown := set(names) - set(CONTENDERS):
        parser.error(f"--layers: {', '.join(CONTENDERS)}; not {', '.join(sorted(unknown))}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    runs = finished(options.out, options.updates)
    for seed in range(options.seeds):
        for rate in [float(rate) for rate in options.rates.split(",")]:
            for name in names:
                if (name, seed, rate) not in {(run.layer, run.seed, run.rate) for run in runs}:
                    runs = ordered([*runs, train(name, seed, rate, options.updates)])
                    write(options.out, options.updates, runs)
    print("\n".join(["", *table(runs, settings(options.updates))]))


if __name__ == "__main__":
    main()
