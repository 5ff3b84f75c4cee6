"""Texts of foreign vector environments as arrays of strings."""

from typing import Any

import numpy as np
from gymnasium.vector import VectorWrapper

from palaestra.envs.trees import texts_as_arrays


class TextArrays(VectorWrapper):
    """Turn the tuples of strings that Gymnasium gives for N texts into arrays of strings `[N]`."""

    stateless = True

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environments."""
        observation, infos = self.env.reset(seed=seed, options=options)
        return texts_as_arrays(self.single_observation_space, observation), infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the environments; a dense final observation is turned too."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        space = self.single_observation_space
        final = infos.get("final_obs")
        if isinstance(final, dict | tuple):
            infos["final_obs"] = texts_as_arrays(space, final)
        return texts_as_arrays(space, observation), reward, terminated, truncated, infos
