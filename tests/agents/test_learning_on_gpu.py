"""Learning on a GPU: the steps of the CPU, and checkpoints that travel between them."""

from typing import Any

import numpy as np
import pytest
import torch

from palaestra.agents.device import resolve_device, send
from tests.agents.test_ppo_learner import POLICIES, agent_of, played

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def test_what_is_sent_to_a_gpu_arrives_unchanged() -> None:
    tensor = torch.randn(1000)
    sent = send(tensor, torch.device(resolve_device("auto")))
    assert sent.device.type == "cuda"
    assert torch.equal(sent.cpu(), tensor)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("options", [{}, {"actor_device": "learner"}, {"precision": "bfloat16"}])
def test_a_gpu_takes_the_steps_of_the_cpu(policy: str, options: dict[str, Any]) -> None:
    fragment = played(agent_of(policy))
    gpu = agent_of(policy, "cuda", **options)
    learners = [gpu.make_learner(), agent_of(policy).make_learner()]
    for learner in learners:
        assert np.isfinite(learner.update([fragment])["train/value_loss"])
    for name, weight in learners[1].weights().items():
        # Each of Adam's four steps is at most about the learning rate, whatever rounding decides.
        np.testing.assert_allclose(learners[0].weights()[name], weight, rtol=0, atol=8 * 3e-4)
    actor = gpu.make_actor()
    actor.load_weights(learners[0].weights())
    action, _, extras = actor.act(
        fragment.observation[0],  # type: ignore[index]
        actor.initial_state(4),
        np.ones(4, bool),
        np.random.default_rng(0),
        "sample",
    )
    assert isinstance(action, np.ndarray)
    assert isinstance(extras["value"], np.ndarray)


def test_a_learner_on_a_gpu_resumes_on_the_cpu() -> None:
    agent = agent_of(device="cuda")
    learner, fragment = agent.make_learner(), played(agent)
    learner.update([fragment])
    other = agent_of().make_learner()
    other.load_state_dict(learner.state_dict())
    for name, weight in learner.weights().items():
        np.testing.assert_array_equal(weight, other.weights()[name], err_msg=name)
