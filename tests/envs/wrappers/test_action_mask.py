import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from palaestra.envs import make_vec
from palaestra.envs.recorded import RowsVectorEnv
from palaestra.envs.tictactoe.env import TicTacToeEnv
from palaestra.envs.tictactoe.vector import TicTacToeVectorEnv
from palaestra.envs.wrappers import ActionMask, VectorActionMask
from palaestra.errors import UserError


def first_legal(observation: dict) -> np.ndarray:
    return observation["action_mask"].argmax(axis=-1)


def test_the_mask_stands_beside_the_observation_in_every_step() -> None:
    env, bare = ActionMask(TicTacToeEnv()), TicTacToeEnv()
    observation, info = env.reset(seed=0)
    plain, _ = bare.reset(seed=0)
    over = False
    while not over:
        assert env.observation_space.contains(observation)
        assert (observation["observation"] == plain).all()
        assert (observation["action_mask"] == info["action_mask"]).all()
        action = first_legal(observation)
        observation, _, over, _, info = env.step(action)
        plain, *_ = bare.step(action)
    assert not observation["action_mask"].any()


def test_final_observations_of_a_vector_environment_are_wrapped_too() -> None:
    bare = TicTacToeVectorEnv(5, first="random")
    envs = VectorActionMask(TicTacToeVectorEnv(5, first="random"))
    assert envs.observation_space["action_mask"].shape == (5, 9)
    observation, info = envs.reset(seed=0)
    bare.reset(seed=0)
    finals = 0
    for _ in range(20):
        assert envs.observation_space.contains(observation)
        actions = first_legal(observation)
        observation, _, over, _, info = envs.step(actions)
        plain, *_, plain_info = bare.step(actions)
        assert (observation["observation"] == plain).all()
        assert (observation["action_mask"] == plain_info["action_mask"]).all()
        if over.any():
            finals += over.sum()
            final = info["final_obs"]
            assert (final["observation"] == plain_info["final_obs"]).all()
            assert not final["action_mask"][over].any()
    assert finals > 0


def test_a_wrapped_vector_environment_equals_wrapped_single_ones() -> None:
    native = VectorActionMask(TicTacToeVectorEnv(3))
    sync = SyncVectorEnv(
        [lambda: ActionMask(TicTacToeEnv())] * 3, autoreset_mode=AutoresetMode.SAME_STEP
    )
    assert native.single_observation_space == sync.single_observation_space
    one, _ = native.reset(seed=4)
    two, _ = sync.reset(seed=4)
    for _ in range(15):
        for key in ("observation", "action_mask"):
            assert (one[key] == two[key]).all()
        actions = first_legal(one)
        one, two = native.step(actions)[0], sync.step(actions)[0]


def test_rows_of_gymnasium_are_wrapped_as_each_alone_would_be() -> None:
    wrapped = make_vec("Taxi-v4", 3, ("action-mask",), max_episode_steps=4)
    alone = RowsVectorEnv([lambda: ActionMask(gymnasium.make("Taxi-v4", max_episode_steps=4))] * 3)
    for envs in (wrapped, alone):
        envs.reset(seed=0)
        envs.step(np.zeros(3, int))  # so that row 1 ends later than the others
        envs.reset(options={"reset_mask": np.array([False, True, False])})
    for _ in range(11):
        one, *_, infos = wrapped.step(np.zeros(3, int))
        two, *_, other = alone.step(np.zeros(3, int))
        for key in ("observation", "action_mask"):
            assert (one[key] == two[key]).all()
        for row in np.flatnonzero(other.get("_final_obs", [])):
            assert infos["final_obs"][row]["observation"] == other["final_obs"][row]["observation"]
            final = infos["final_obs"][row]["action_mask"]
            assert (final == other["final_obs"][row]["action_mask"]).all()
    assert infos.keys() == other.keys()


def test_environments_without_a_mask_or_with_other_actions_are_refused() -> None:
    with pytest.raises(UserError, match="gives no info"):
        ActionMask(gymnasium.make("CartPole-v1")).reset(seed=0)
    with pytest.raises(UserError, match="accepted: Discrete"):
        ActionMask(gymnasium.make("Pendulum-v1"))
