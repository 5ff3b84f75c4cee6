"""Sizes at which the operators are measured, and the least number of bytes that they move."""

from palaestra.kernels.verify.cases import CELLS, Case, Size

RESETS = (0.0, 0.01, 0.03, 0.1)
"""Probabilities that a step is the first of an episode."""

FOCUS = Size(256, 128, 4, 64)
"""The size of a recurrent PPO update at which every probability of `RESETS` is measured."""

_RL = (
    Size(4096, 32, 2, 32),
    Size(256, 64, 4, 32),
    FOCUS,
    Size(1024, 128, 4, 64),
    Size(64, 512, 8, 64),
    Size(16, 1024, 8, 64),
)
_TOKENS = 65_536
_LLM = (
    Size(8, 2048, 16, 64),
    Size(4, 4096, 16, 128),
    Size(2, 16_384, 16, 128),
    *(Size(_TOKENS // T, T, 16, 128) for T in (512, 2048, 8192, 65_536)),
)
# The sizes of figure 3 of arXiv 2507.04416: width 2048, 262 144 tokens.
_RAT = tuple(Size(262_144 // T, T, 16, 128) for T in (4096, 8192, 131_072))

_ACTING = tuple(Size(N, 1, 4, 64) for N in (1, 64, 1024, 4096, 16_384))
DECODING = Size(512, 4096, 16, 128)
"""One step at position T, for the operators whose step reads all of the past."""

SECTIONS = ("cpu", "rl", "llm", "acting", "stress")
"""Names of the groups of sizes; "stress" is not timed."""

DEFAULTS = {"cpu": ("cpu", "stress"), "cuda": ("rl", "llm", "acting", "stress")}
"""Sections of each device."""


SMALL = ("cpu", "acting", "stress")
"""Sections that a CPU can do."""


def sizes(section: str, case: Case, device: str) -> tuple[Size, ...]:
    """Return the sizes of a section for an operator; on a CPU those that fit into its memory."""
    if section == "llm":
        return () if case.op in CELLS else _LLM + (_RAT if case.op in ("rat", "attention") else ())
    if section == "acting":
        if device == "cpu":
            return _ACTING[:3]
        return (*_ACTING, DECODING) if case.op in ("rat", "attention") else _ACTING
    return {"cpu": (Size(64, 128, 4, 32),), "rl": _RL}.get(section, ())


def probabilities(section: str, size: Size) -> tuple[float, ...]:
    """Return the probabilities of resets of a section at a size."""
    if section == "cpu" or size == FOCUS:
        return RESETS
    return {"rl": (0.0, 0.03), "acting": (0.03,)}.get(section, (0.0,))


def window_bytes(size: Size, itemsize: int) -> int:
    """Return what a forward pass moves at least: q, k, v and the output, once."""
    return 4 * size.B * size.T * size.H * size.D * itemsize


def acting_bytes(case: Case, size: Size) -> int:
    """Return what a step moves at least: a float32 matrix of each head, read and written.

    That is the state of the linear and the delta operators; Mesa's is two of them. For others: 0.
    """
    matrices = {"gla": 1, "delta": 1, "mesa": 2}.get(case.op, 0)
    return 2 * matrices * size.B * size.H * size.D**2 * 4
