"""Configurations: presets, files, overrides, and an error by name for whatever is wrong."""

from pathlib import Path

import pytest
import yaml

from palaestra.errors import UserError
from palaestra.registry import registry
from palaestra.runs.config import (
    config_hash,
    default_run_id,
    dump_yaml,
    load_config,
    parse_yaml,
    resolve,
)


@pytest.mark.parametrize("name", sorted(registry.entries("preset")))
def test_every_preset_resolves_and_survives_a_round_trip(name: str) -> None:
    config = load_config(name)
    again = resolve(parse_yaml(dump_yaml(config), name))
    assert again == config
    assert config_hash(again) == config_hash(config)


def test_a_resolved_configuration_leaves_no_default_implicit() -> None:
    config = load_config("cartpole")
    assert config.agent["clip_range"] == 0.2
    assert config.policy is not None
    assert config.policy["activation"] == "tanh"


def test_overrides_go_through_the_same_checks() -> None:
    config = load_config("cartpole", ["agent.learning_rate=3e-4", "env.num_envs=4"], seed=7)
    assert (config.agent["learning_rate"], config.env.num_envs, config.seed) == (3e-4, 4, 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("agent.lerning_rate=1", r"agent\.lerning_rate: unknown key; did you mean 'learning_rate'"),
        ("agent.gamma=2", r"agent\.gamma: 2 is not accepted: .*less than or equal to 1"),
        ("agent.num_epochs=many", r"agent\.num_epochs: 'many' is not accepted"),
        ("agent.name=ppoo", "unknown agent 'ppoo': did you mean 'ppo'"),
        ("policy.name=gruu", "unknown policy 'gruu': did you mean 'gru'"),
        ("policy.activation=gelu", r"policy\.activation: 'gelu' is not accepted"),
        ("rollout.stepz=1", r"rollout\.stepz: unknown key; did you mean 'steps'"),
        ("evaluation.suite=bandits", "unknown suite 'bandits': did you mean 'bandit'"),
        ("seed=-1", "seed: -1 is not accepted"),
        ("agent", "expected the form key=value"),
        ("total_steps.x=1", "'total_steps' is a value, not a group"),
        ("plugins=[no_such_module]", "'no_such_module' fails at import"),
        ("policy=null", "agent 'ppo' needs one"),
        ("agent.gamma=!!python/object:os.system {}", "not plain YAML"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_config("cartpole", ["evaluation.suite=bandit", override])


def test_options_of_a_former_choice_do_not_carry_over() -> None:
    config = load_config("cartpole", ["policy.name=gru"])
    assert config.policy is not None
    assert config.policy["hidden_size"] == 64


def test_environments_that_workers_cannot_share_are_refused() -> None:
    with pytest.raises(UserError, match="8 environments cannot be shared equally by 3 workers"):
        load_config("cartpole", rollout__workers=3)


def test_a_file_is_read_like_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(registry.get("preset", "cartpole")))
    assert load_config(str(path)) == load_config("cartpole")


def test_an_unknown_preset_and_a_missing_file_are_named() -> None:
    with pytest.raises(UserError, match="unknown preset 'cartpol': did you mean 'cartpole'"):
        load_config("cartpol")
    with pytest.raises(UserError, match=r"'missing\.yaml' does not exist"):
        load_config("missing.yaml")


def test_where_a_run_is_carried_out_does_not_change_its_identity() -> None:
    one = load_config("cartpole")
    other = load_config("cartpole", ["tensorboard=false", "rollout.max_restarts=9"])
    assert default_run_id(one) == default_run_id(other)
    assert default_run_id(one) != default_run_id(load_config("cartpole", seed=1))
    assert default_run_id(one).startswith("cartpole-cartpole-v1-ppo-mlp-s0-")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 100,000 values, aliases included"),
        ("a: &a {b: *a}", r"alias \*a: the anchor of a whole value before it is expected"),
        ("a: *nothing", r"alias \*nothing"),
        ("[" * 1000, "more than 50 groups within each other"),
        ("{a: " * 1000, "more than 50 groups within each other"),
        ("x" * 1_000_001, "longer than 1,000,000 characters"),
        ("seed: 1\nseed: 2", "line 2: the key 'seed' is given twice"),
        ("agent: {name: ppo, name: dqn}", "the key 'name' is given twice"),
        ("day: 2026-01-01", "not plain YAML: .*date"),
        ("x: !!binary aGk=", "not plain YAML: .*bytes"),
        ("x: !!set {a, b}", "not plain YAML: .*set"),
        ("[a]: 2", "a key is not a word"),
        ("x: " + "9" * 5000, "a value that cannot be read: .*4300 digits"),
    ],
)
def test_yaml_that_is_no_configuration_is_refused_before_it_is_built(
    text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        parse_yaml(text, "mine.yaml")


def test_aliases_and_merged_keys_of_a_usual_size_are_accepted() -> None:
    text = "base: &b {x: 1e-3, y: 2}\nmore: {<<: *b, y: 3}\nsame: *b"
    base = {"x": 1e-3, "y": 2}
    assert parse_yaml(text, "") == {"base": base, "more": {**base, "y": 3}, "same": base}


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"total_steps: \xff\xfe")
    with pytest.raises(UserError, match=r"mine\.yaml: cannot be read as a text file in UTF-8"):
        load_config(str(tmp_path / "mine.yaml"))
