"""A replay: a few episodes of the agent, step by step, and frames where the environment draws."""

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from palaestra.agents.base import Actor, Mode
from palaestra.envs.rows import step_info
from palaestra.runs.config import RunConfig
from palaestra.runs.evaluation.evaluate import Factory
from palaestra.runs.evaluation.scoring import TRACE_KEYS
from palaestra.runs.rollouts.build import make_envs
from palaestra.runs.rollouts.stepper import Stepper
from palaestra.seeding import Role, generator, integer

MAX_FRAMES = 300
"""Frames that are kept; the first episode comes first."""

MAX_NUMBERS = 256
"""Observations of more numbers are left out of the record."""

_STREAM = zlib.crc32(b"export/replay")

Row = dict[str, Any]


@dataclass
class Replay:
    """What was played."""

    env_id: str
    mode: Mode
    rows: list[list[Row]] = field(default_factory=list)
    """One list of steps for each episode."""
    frames: list[np.ndarray] = field(default_factory=list)
    """What the first episode looked like before each step, uint8 `[H, W, 3]`."""
    fps: float = 30
    notes: list[str] = field(default_factory=list)
    """What could not be recorded, and why."""

    def lines(self) -> str:
        """Return the content of `replay.jsonl`: one JSON object a step."""
        return "".join(
            json.dumps({"env_id": self.env_id, "mode": self.mode, "episode": e, "t": t, **row})
            + "\n"
            for e, episode in enumerate(self.rows)
            for t, row in enumerate(episode)
        )


def record(config: RunConfig, actors: Factory, episodes: int) -> Replay:
    """Play whole episodes in the training environment, in the mode of the run's evaluation.

    The seeds follow from the run's seed, in the streams of evaluation.
    """
    mode: Mode = config.evaluation.mode if config.evaluation else "greedy"
    replay = Replay(config.env.id, mode)
    env = _drawing_env(config)
    try:
        actor = actors(env.single_observation_space, env.single_action_space)
        rng = generator(config.seed, Role.EVAL_ACTING, _STREAM)
        replay.fps = float(env.metadata.get("render_fps", replay.fps))
        for episode in range(episodes):
            seed = integer(config.seed, Role.EVAL_ENV, _STREAM, episode)
            replay.rows.append(_episode(env, actor, seed, rng, replay))
    finally:
        env.close()
    return replay


def _drawing_env(config: RunConfig) -> VectorEnv:
    """Return one environment, one that draws itself if it can."""
    env = make_envs(config, 1)
    if "rgb_array" not in env.metadata.get("render_modes", []):
        return env
    env.close()
    return make_envs(config, 1, render_mode="rgb_array")


def _episode(
    env: VectorEnv, actor: Actor, seed: int, rng: np.random.Generator, replay: Replay
) -> list[Row]:
    """Play one episode; its frames go to the replay as far as there is room."""
    space = env.single_action_space
    clip = (space.low, space.high) if isinstance(space, gymnasium.spaces.Box) else None
    stepper = Stepper(env, actor, rng, replay.mode)
    stepper.begin([seed])
    rows: list[Row] = []
    done = False
    while not done:
        if not replay.rows:
            _draw(env, replay)
        seen = stepper.observation
        moment = stepper.step()
        done = moment.any_done
        row = {
            "seed": seed,
            "observation": _recorded(seen),
            "action": _plain(np.clip(stepper.action, *clip) if clip else stepper.action),
            "reward": float(moment.raw_reward[0]),
            "terminated": bool(moment.terminated[0]),
            "truncated": bool(moment.truncated[0]),
        }
        told = {name: step_info(moment.info, name, moment.done) for name in TRACE_KEYS}
        row |= {name: float(value[0]) for name, value in told.items() if value is not None}
        if done:
            row["final_observation"] = _recorded(
                stepper.final_observation(moment, np.zeros(1, np.int64))
            )
        rows.append(row)
    return rows


def _draw(env: VectorEnv, replay: Replay) -> None:
    if env.render_mode != "rgb_array" or replay.notes or len(replay.frames) >= MAX_FRAMES:
        return
    try:
        frames = env.render()
    except Exception as error:  # whatever a drawing library lacks; the record needs none
        replay.notes.append(f"No picture: the environment could not draw itself ({error}).")
        return
    if frames is not None:
        replay.frames.append(np.asarray(frames[0], np.uint8))


def _recorded(observation: Any) -> Any:
    """Return the only row of an observation as plain data, or None where it is large."""
    plain = _plain(observation)
    return plain if np.size(_leaves(plain)) <= MAX_NUMBERS else None


def _plain(tree: Any) -> Any:
    """Return the first row of a batched tree as plain data."""
    if isinstance(tree, dict):
        return {name: _plain(part) for name, part in tree.items()}
    row = tree[0]
    return row if isinstance(row, str) else np.asarray(row).tolist()


def _leaves(plain: Any) -> list[Any]:
    if isinstance(plain, dict):
        return [leaf for part in plain.values() for leaf in _leaves(part)]
    return (
        [leaf for part in plain for leaf in _leaves(part)] if isinstance(plain, list) else [plain]
    )
