"""Associative recall: every query's target is what was bound to its key, and nothing else is."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = [(32, 8), (64, 16), (64, 4), (256, 1), (16, 1)]
LAYERS = ("attention", "linear", "mesa", "rat-swa", "lstm")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.startswith("associative_")]:
        del sys.modules[name]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("length", "pairs"), SIZES)
def test_a_query_asks_for_the_value_that_was_bound_to_its_key(length: int, pairs: int) -> None:
    from associative_data import BLANK, Vocabulary, draw

    from palaestra.policies.language import IGNORED

    batch = draw(Vocabulary(20, 7), 50, length, pairs, seeded(0))
    for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        value = dict(zip(tokens[: 2 * pairs : 2], tokens[1 : 2 * pairs : 2], strict=True))
        assert len(value) == pairs, "a key is twice among the pairs"
        assert all(1 <= k <= 20 for k in value)
        assert all(21 <= v <= 27 for v in value.values())
        assert targets[: 2 * pairs] == [IGNORED] * (2 * pairs)
        asked = [token for token in tokens[2 * pairs :] if token != BLANK]
        assert sorted(asked) == sorted(value), "every key is asked for once"
        for token, target in zip(tokens[2 * pairs :], targets[2 * pairs :], strict=True):
            assert target == (IGNORED if token == BLANK else value[token])


def test_the_same_seed_gives_the_same_sequences_and_goes_on_with_fresh_ones() -> None:
    from associative_data import Vocabulary, draw

    one, other = seeded(3), seeded(3)
    first = draw(Vocabulary(20, 7), 4, 64, 8, one)
    again = draw(Vocabulary(20, 7), 4, 64, 8, other)
    assert (first.tokens == again.tokens).all()
    assert (first.targets == again.targets).all()
    assert (draw(Vocabulary(20, 7), 4, 64, 8, one).tokens != first.tokens).any()
    assert (draw(Vocabulary(20, 7), 4, 64, 8, seeded(4)).tokens != first.tokens).any()


def test_a_single_query_lies_where_the_power_law_puts_it() -> None:
    from associative_data import POWER, Vocabulary, draw

    draws, places = 20_000, 7
    batch = draw(Vocabulary(3, 2), draws, 16, 1, seeded(0))
    place = (batch.targets >= 0).nonzero()[:, 1]
    assert (place % 2 == 0).all()
    found = torch.bincount(place // 2 - 1, minlength=places) / draws
    law = torch.arange(1.0, places + 1) ** (POWER - 1)
    law /= law.sum()
    assert ((found - law).abs() < 5 * (law * (1 - law) / draws).sqrt()).all()


@pytest.mark.parametrize(("length", "pairs"), [(63, 4), (64, 17), (128, 21)])
def test_pairs_that_do_not_fit_are_refused(length: int, pairs: int) -> None:
    from associative_data import Vocabulary, draw

    with pytest.raises(ValueError, match="do not fit"):
        draw(Vocabulary(20, 7), 4, length, pairs, seeded(0))


@pytest.mark.parametrize("updates", [6, 100, 1200])
def test_the_course_has_every_stage_for_its_share(updates: int) -> None:
    from associative_recall import STAGES, plan

    course = plan(updates)
    assert len(course) == updates
    for stage in STAGES:
        lengths = [one.length for one in course]
        assert abs(lengths.count(stage.length) - stage.share * updates) <= 1
        pairs = {one.pairs for one in course if one.length == stage.length}
        assert pairs <= {stage.pairs, stage.pairs // 2, stage.pairs // 4}


@pytest.mark.parametrize("name", LAYERS)
def test_the_logits_at_the_queries_are_those_of_the_whole_model(name: str) -> None:
    from associative_data import draw
    from associative_recall import VOCABULARY, answers, make_model

    model = make_model(name, 0)
    batch = draw(VOCABULARY, 2, 32, 4, seeded(0))
    logits, targets = answers(model, batch)
    asked = batch.targets >= 0
    torch.testing.assert_close(logits, model(batch.tokens).logits[asked])
    assert (targets == batch.targets[asked]).all()


def test_finished_runs_are_kept_and_not_those_of_other_settings(tmp_path: Path) -> None:
    from associative_recall import finished, write
    from associative_report import Run

    file = tmp_path / "recall.json"
    accuracy = {"8": 0.5, "16": 0.25}
    run = Run("mesa", 0, 1e-3, 10, 20, 1.0, 0.5, [(1, 5.0, 0.0), (2, 4.0, 0.1)], accuracy)
    write(file, 2, [run])
    assert finished(file, 2) == [run._replace(curve=[list(point) for point in run.curve])]
    assert " 50.0 " in file.with_suffix(".txt").read_text()
    with pytest.raises(SystemExit, match="other settings"):
        finished(file, 3)


def test_a_layer_is_shown_at_the_rate_that_trained_best_not_at_the_one_that_tests_best() -> None:
    from associative_report import Run, chosen

    def run(rate: float, trained: float, tested: float) -> Run:
        return Run("gla", 0, rate, 1, 1, 1.0, 1.0, [(1, 1.0, trained)], {"8": tested})

    (group,) = chosen([run(1e-3, 0.9, 0.1), run(3e-3, 0.2, 0.8)])
    assert group.runs == [run(1e-3, 0.9, 0.1)]
    assert group.tried == [1e-3, 3e-3]
