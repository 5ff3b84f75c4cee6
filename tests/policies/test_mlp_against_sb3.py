"""The default perceptron is the network of Stable-Baselines3's MlpPolicy for PPO."""

import torch
from gymnasium import spaces

import palaestra.policies as policies


def test_shapes_gains_and_outputs_equal_those_of_mlp_policy() -> None:
    from stable_baselines3.common.policies import ActorCriticPolicy

    observations, actions = spaces.Box(-1, 1, (6,)), spaces.Discrete(3)
    theirs = ActorCriticPolicy(observations, actions, lr_schedule=lambda _: 0.0)
    ours = policies.make("mlp", observations, actions)
    assert ours.critic_backbone is not None
    pairs = [
        (theirs.mlp_extractor.policy_net[0], ours.backbone.layers[0]),
        (theirs.mlp_extractor.policy_net[2], ours.backbone.layers[2]),
        (theirs.mlp_extractor.value_net[0], ours.critic_backbone.layers[0]),
        (theirs.mlp_extractor.value_net[2], ours.critic_backbone.layers[2]),
        (theirs.action_net, ours.action_head.linear),
        (theirs.value_net, ours.value_head.linear),
    ]
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in ours.parameters())
    for sb3, layer in pairs:
        assert sb3.weight.shape == layer.weight.shape
        # An orthogonal matrix times a gain has this gain as each of its singular values.
        torch.testing.assert_close(
            torch.linalg.svdvals(sb3.weight), torch.linalg.svdvals(layer.weight)
        )
        assert not layer.bias.any()
        layer.load_state_dict(sb3.state_dict())
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    output, _ = ours.step(x, ours.initial_state(5), torch.zeros(5, dtype=torch.bool))
    torch.testing.assert_close(output.value, theirs.predict_values(x)[:, 0])
    torch.testing.assert_close(
        output.distribution.log_probs, theirs.get_distribution(x).distribution.logits
    )
