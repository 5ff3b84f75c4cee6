"""Whether an environment keeps to the interface, and what is wrong if it does not.

for line in check_environment("my_package:MyEnv-v0", {"size": 7}, ["time-limit"]).lines():
print(line)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from palaestra.envs.close import safe_close
from palaestra.envs.make import make_vec, single_maker
from palaestra.envs.protocol import observation_fault, reset_fault, reward_fault, step_fault
from palaestra.envs.recorded import sample_action
from palaestra.envs.rows import reset_rows
from palaestra.envs.state import get_state, is_restorable, set_state
from palaestra.envs.trees import Tree, equal_trees, map_tree
from palaestra.envs.wrappers.build import Wrappers, read_wrappers
from palaestra.errors import EnvironmentFailure, RunError, UserError

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with an environment."""

    where: str
    """"make", "reset", "step", "vector" or "determinism"."""
    text: str
    """What is wrong, and what is expected."""
    fatal: bool = True
    """Whether training is impossible; other findings cost the exact resume alone."""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass(frozen=True)
class Report:
    """What a check found."""

    env_id: str
    facts: dict[str, str] = field(default_factory=dict)
    """What is known of the environment, by name."""
    findings: tuple[Finding, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether an agent can be trained on it."""
        return not any(finding.fatal for finding in self.findings)

    def lines(self) -> list[str]:
        """Return the report for people to read."""
        lines = [self.env_id, *(f"  {name}: {fact}" for name, fact in self.facts.items())]
        found = [f"  {'error' if f.fatal else 'note'}: {f}" for f in self.findings]
        return lines + (found or ["  nothing is wrong"])

    def raise_errors(self) -> None:
        """Raise what makes training impossible.

        Raises:
          UserError: with one line for each such finding.
        """
        if not self.ok:
            fatal = [f"env {self.env_id!r}: {f}" for f in self.findings if f.fatal]
            raise UserError("\n".join(fatal))


def check_environment(
    env_id: str,
    options: Options | None = None,
    wrappers: Wrappers = (),
    steps: int = 100,
    seed: int = 0,
) -> Report:
    """Play random actions and compare all that the environment returns with its interface.

    A single environment is played first, bare; then two rows of what training would use, with the
    wrappers; then both again, to see whether seed and actions decide what happens.

    Args:
      env_id: as `make_vec` takes it.
      options: of the environment.
      wrappers: as `make_vec` takes them.
      steps: actions of each play.
      seed: of the environment and of the actions.
    """
    options = dict(options or {})
    try:
        read_wrappers(wrappers, 0.99)
        envs = make_vec(env_id, 2, wrappers, **options)
    except (UserError, EnvironmentFailure) as error:
        return Report(env_id, {}, (Finding("make", str(error)),))
    facts = {
        "observation space": str(envs.single_observation_space),
        "action space": str(envs.single_action_space),
        "autoreset": envs.metadata["autoreset_mode"].name.lower().replace("_", "-")
        if "autoreset_mode" in envs.metadata
        else "not told",
    }
    findings = _check_single(env_id, options, steps, seed, facts)
    if not findings:
        findings = _check_vector(envs, steps, seed)
    safe_close(envs)
    if not findings:
        findings = check_determinism(env_id, options, wrappers, steps, seed)
        exact = "no" if findings else "yes"
        facts["resumes exactly"] = exact
    return Report(env_id, facts, tuple(findings))


def check_determinism(
    env_id: str,
    options: Options | None = None,
    wrappers: Wrappers = (),
    steps: int = 50,
    seed: int = 0,
) -> list[Finding]:
    """Return why a run on this environment could not be resumed exactly; nothing if it could.

    The same seed and actions are played twice, and from a state in the middle once more.
    """
    options = dict(options or {})
    made: list[Any] = []
    try:
        for _ in range(3):
            made.append(make_vec(env_id, 2, wrappers, **options))
        one, other, third = made
        rng = np.random.default_rng(seed)
        seeds = [int(s) for s in rng.integers(2**31, size=2)]
        first = (reset_rows(one, seeds)[0], reset_rows(other, seeds)[0])
        if not equal_trees(*first):
            return [_undecided("the first observations differ", 0)]
        actions = Actions(one, seed)
        for t in range(steps // 2):
            action = actions.draw()
            if fault := _difference(actions.told(one.step(action)), other.step(action)):
                return [_undecided(fault, t + 1)]
        if not is_restorable(one):
            text = (
                "the environment or a wrapper of it cannot give its state: a run is resumed with "
                "new episodes (env.reset_at_checkpoint=true)"
            )
            return [Finding("determinism", text, fatal=False)]
        state = get_state(one)
        reset_rows(third, [seed, seed])
        set_state(third, state)
        for t in range(steps // 2):
            action = actions.draw()
            if fault := _difference(actions.told(one.step(action)), third.step(action)):
                return [_undecided(f"after its state was restored, {fault}", t + 1)]
    except (UserError, RunError) as error:
        return [Finding("step", str(error), fatal=False)]
    finally:
        for env in made:
            safe_close(env)
    return []


def _undecided(fault: str, step: int) -> Finding:
    text = (
        f"{fault} at step {step}, with the same seed and actions: a run cannot be resumed exactly "
        "(env.reset_at_checkpoint=true starts new episodes at every checkpoint)"
    )
    return Finding("determinism", text, fatal=False)


def _difference(one: tuple[Any, ...], other: tuple[Any, ...]) -> str | None:
    for name, x, y in zip(
        ("observations", "rewards", "terminations", "truncations"), one, other, strict=False
    ):
        if not equal_trees(x, y):
            return f"{name} differ"
    return None


class Actions:
    """Random actions for all rows, legal ones where the environment tells which those are."""

    def __init__(self, env: Any, seed: int) -> None:
        self._space, self._single = env.action_space, env.single_action_space
        self._space.seed(seed)
        self._rng = np.random.default_rng(seed)
        self._info: dict[str, Any] = {}

    def told(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        """Note the infos of what a step returned, and return it."""
        self._info = result[4]
        return result

    def draw(self) -> Any:
        """Return actions of all rows."""
        mask = self._info.get("action_mask")
        if mask is None or not isinstance(self._single, spaces.Discrete):
            return self._space.sample()
        chances = self._rng.random(np.shape(mask)) * np.asarray(mask, bool)
        return chances.argmax(axis=1) + self._single.start


def _check_single(
    env_id: str, options: dict[str, Any], steps: int, seed: int, facts: dict[str, str]
) -> list[Finding]:
    """Play one environment without Gymnasium's own checker, which hides what was returned."""
    try:
        env = single_maker(env_id, **options)().unwrapped
    except UserError:
        return []  # there is a vector version alone
    found: dict[str, Finding] = {}
    lengths: list[int] = []
    try:
        _play(env, steps, seed, found, lengths)
    finally:
        safe_close(env)
    if lengths:
        facts["episodes played"] = f"{len(lengths)}, {np.mean(lengths):.1f} steps long on average"
    return list(found.values())


def _play(env: Any, steps: int, seed: int, found: dict[str, Finding], lengths: list[int]) -> None:
    """Play, and note the first fault of each kind."""
    info = _reset(env, seed, found)
    env.action_space.seed(seed)
    t = 0
    for _ in range(steps):
        if info is None:
            return
        try:
            result = env.step(sample_action(env.action_space, info))
        except Exception as error:
            found["step"] = Finding("step", f"raises {type(error).__name__}: {error}")
            return
        if fault := step_fault(result):
            found["step"] = Finding("step", fault)
            return
        t += 1
        observation, reward, terminated, truncated, info = result
        for kind, fault in (
            ("reward", reward_fault(reward)),
            ("observation", observation_fault(env.observation_space, observation)),
        ):
            if fault:
                found.setdefault(kind, Finding("step", f"at step {t} of an episode, {fault}"))
        if terminated or truncated:
            lengths.append(t)
            t, info = 0, _reset(env, None, found)


def _reset(env: Any, seed: int | None, found: dict[str, Finding]) -> dict[str, Any] | None:
    try:
        result = env.reset(seed=seed)
    except Exception as error:
        found["reset"] = Finding("reset", f"raises {type(error).__name__}: {error}")
        return None
    if fault := reset_fault(result):
        found["reset"] = Finding("reset", fault)
        return None
    if fault := observation_fault(env.observation_space, result[0]):
        found.setdefault("observation", Finding("reset", fault))
    info: dict[str, Any] | None = result[1]
    return info


def _check_vector(envs: Any, steps: int, seed: int) -> list[Finding]:
    """Play the rows of training, with their wrappers."""
    try:
        observation, _ = reset_rows(envs, [seed, seed + 1])
        actions = Actions(envs, seed)
        for t in range(steps):
            fault = _rows_fault(envs.single_observation_space, observation, envs.num_envs)
            if fault:
                return [Finding("vector", f"at step {t}, {fault}")]
            observation, rewards, *_ = actions.told(envs.step(actions.draw()))
            for row, reward in enumerate(rewards):
                if fault := reward_fault(reward):
                    return [Finding("vector", f"at step {t + 1} in row {row}, {fault}")]
    except (UserError, EnvironmentFailure) as error:
        return [Finding("vector", str(error))]
    except Exception as error:
        return [Finding("vector", f"raises {type(error).__name__}: {error}")]
    return []


def _rows_fault(space: gymnasium.Space[Any], observation: Tree, rows: int) -> str | None:
    for row in range(rows):
        one = map_tree(lambda x, row=row: x[row], observation)
        if fault := observation_fault(space, one, f"the observation of row {row}"):
            return fault
    return None
