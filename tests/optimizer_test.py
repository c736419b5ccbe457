"""Tests of `LearnedOptimizer` beyond the contract: construction, groups, presets, reports.

All hold on every Keras backend. `tests/contract` holds it to what Keras promises of optimizers.
"""

import json

import keras
import numpy as np
import pytest

from l2l_keras import LearnedOptimizer, SkippedSteps
from l2l_keras.rules import NTMBFGS, CoordinatewiseLSTM
from tests.contract.harness import (
    RULES,
    GradientDescent,
    apply,
    assert_close,
    assert_equal,
    by_the_rule,
    fit,
    load_strictly,
    make_gradients,
    make_variables,
    numpy,
    regression_data,
    regression_model,
    states,
    tensors,
    train,
)


def lstm(seed=0):
    return RULES["log_sign_lstm"](seed)


class TestConstruction:
    def test_anything_but_a_rule_is_refused(self):
        with pytest.raises(ValueError, match="from_preset.*Received: rule='adam'"):
            LearnedOptimizer("adam")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"rule": {}}, "At least one group must have"),
            ({"rule": {".*": keras.optimizers.SGD()}}, "At least one group must have"),
            ({"rule": {"a": lstm(), "b": "adam"}}, "Received: 'b': 'adam'"),
            ({"rule": {"a": lstm(), 3: lstm()}}, "Received: 3: "),
            (
                {"rule": {"a": lstm(), "b": keras.optimizers.SGD(use_ema=True)}},
                "Set `use_ema` on the LearnedOptimizer.*group 'b'",
            ),
            ({"rule": lstm(), "group_of": str}, "`group_of` needs a dictionary"),
            ({"rule": lstm(), "state_dtype": "float16"}, "Received: state_dtype='float16'"),
            ({"rule": lstm(), "runaway_factor": 0.5}, "Received: runaway_factor=0.5"),
            ({"rule": lstm(), "clipnorm": 1.0, "clipvalue": 1.0}, "Only one of"),
        ],
    )
    def test_mistakes_are_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            LearnedOptimizer(**arguments)

    def test_works_on_a_copy_of_the_rule(self):
        rule = lstm()
        optimizer = LearnedOptimizer(rule)
        expected = rule.get_weights()
        assert_equal(optimizer.rule.get_weights(), expected)
        rule.set_weights([np.zeros_like(w) for w in expected])
        assert_equal(optimizer.rule.get_weights(), expected)
        assert rule.trainable and len(rule.trainable_variables) == len(expected)

    def test_weights_of_another_rule_are_refused(self):
        config = LearnedOptimizer(lstm()).get_config()
        config["rule"]["config"]["units"] = [4, 4]
        with pytest.raises(ValueError, match=r"must be \d+ numbers. Received: \d+ numbers"):
            LearnedOptimizer.from_config(config)

    def test_a_large_saved_model_is_the_size_of_its_state(self, tmp_path):
        model = keras.Sequential([keras.Input((500,)), keras.layers.Dense(400)])
        model.compile(LearnedOptimizer(CoordinatewiseLSTM(seed=0)), "mse")
        model.optimizer.build(model.trainable_variables)
        model.save(tmp_path / "model.keras")
        slots = 80 * 4 * model.count_params()
        assert slots <= (tmp_path / "model.keras").stat().st_size < 1.1 * slots


@keras.saving.register_keras_serializable(package="l2l_keras_tests")
def by_rank(variable):
    return "matrices" if len(variable.shape) == 2 else "rest"


class TestGroups:
    @pytest.mark.parametrize("by_function", [False, True])
    def test_each_rule_updates_its_own(self, by_function):
        rules = {"matrices": lstm(), "rest": RULES["rnnprop"]()}
        if by_function:
            optimizer = LearnedOptimizer(rules, group_of=by_rank)
        else:
            optimizer = LearnedOptimizer({"kernel$": rules["matrices"], ".*": rules["rest"]})
        model = regression_model()
        variables = model.trainable_variables
        shapes = [tuple(v.shape) for v in variables]
        steps = [make_gradients(step, shapes) for step in range(2)]
        start = model.get_weights()
        for gradients in steps:
            optimizer.apply(tensors(gradients), variables)
        for i, group in enumerate(["matrices", "rest"] * 2):
            values, rule_states = by_the_rule(rules[group], [[g[i]] for g in steps], [start[i]])
            assert_close(numpy(variables[i : i + 1]), values)
            assert_close(numpy([optimizer.state_of(variables[i])]), rule_states)

    def test_one_may_go_to_a_keras_optimizer(self):
        model, whole = regression_model(), regression_model()
        groups = {"bias": keras.optimizers.Adam(0.1, weight_decay=0.01), ".*": lstm()}
        optimizer = LearnedOptimizer(groups, learning_rate=0.5)
        shapes = [tuple(v.shape) for v in model.trainable_variables]
        adam = keras.optimizers.Adam(0.1, weight_decay=0.01)
        rule = LearnedOptimizer(lstm(), learning_rate=0.5)
        for step in range(3):
            gradients = tensors(make_gradients(step, shapes))
            optimizer.apply(gradients, model.trainable_variables)
            adam.apply(gradients[1::2], whole.trainable_variables[1::2])
            rule.apply(gradients[::2], whole.trainable_variables[::2])
        assert_close(model.get_weights(), whole.get_weights())
        with pytest.raises(ValueError, match="No rule updates the variable"):
            optimizer.state_of(model.trainable_variables[1])

    def test_the_first_pattern_wins(self):
        rule = GradientDescent(rate=0.5)
        optimizer = LearnedOptimizer({"_1": GradientDescent(rate=2.0), "variable": rule})
        variables = train(optimizer, steps=1)
        expected = [1.0 - (2.0 if i == 1 else 0.5) * g for i, g in enumerate(make_gradients())]
        assert_close(numpy(variables), expected)

    def test_a_variable_of_no_group_is_refused(self):
        optimizer = LearnedOptimizer({"variable_[01]": lstm()})
        with pytest.raises(ValueError, match=r"a last one, '\.\*'.*variable_2.*matches none"):
            optimizer.build(make_variables())
        optimizer = LearnedOptimizer({"matrices": lstm()}, group_of=by_rank)
        with pytest.raises(ValueError, match=r"`group_of` must return one of \['matrices'\].*rest"):
            optimizer.build(make_variables())

    def test_a_skipped_step_is_one_of_all_groups(self):
        groups = {"variable_2": keras.optimizers.Adam(0.1), ".*": lstm()}
        optimizer = LearnedOptimizer(groups)
        variables = make_variables()
        apply(optimizer, make_gradients(0), variables)
        before = numpy([*variables, *optimizer.variables])
        for bad in (0, 2):  # In a rule's group and in Adam's.
            gradients = make_gradients(1)
            gradients[bad].flat[0] = np.nan
            apply(optimizer, gradients, variables)
        after = numpy([*variables, *optimizer.variables])
        changed = [
            v.path.split("/")[-1]
            for v, a, b in zip([*variables, *optimizer.variables], before, after, strict=True)
            if not np.array_equal(a, b)
        ]
        assert changed == ["iteration", "skipped_steps"]
        assert optimizer.skipped_steps == 2

    def test_all_of_it_is_saved(self, tmp_path):
        groups = {"matrices": lstm(), "rest": keras.optimizers.Adam(0.1)}
        model = regression_model(LearnedOptimizer(groups, group_of=by_rank))
        model.optimizer.rule["matrices"].set_weights([w + 0.1 for w in lstm().get_weights()])
        for _ in range(2):
            model.train_on_batch(*regression_data())
        model.save(tmp_path / "model.keras")
        loaded = load_strictly(tmp_path / "model.keras")
        for some in (model, loaded):
            for _ in range(2):
                some.train_on_batch(*regression_data())
        assert_equal(loaded.get_weights(), model.get_weights())
        assert_equal(numpy(loaded.optimizer.variables), numpy(model.optimizer.variables))
        names = [v.path for v in model.optimizer.variables]
        assert sum("adam" in name for name in names) == 6  # Two moments of two biases, and counts.

    def test_two_optimizers_may_be_made_of_the_same_members(self):
        groups = {"bias": keras.optimizers.Adam(0.1), ".*": lstm()}
        models = [regression_model(LearnedOptimizer(groups)) for _ in range(2)]
        for model in models:
            fit(model, 2)
        assert_equal(models[0].get_weights(), models[1].get_weights())


def full_memory(seed=0):
    return NTMBFGS((4,), 2, output_scale=0.1, seed=seed)


class TestRulesOfScopeModel:
    def test_all_variables_are_one_problem(self):
        steps = [make_gradients(step) for step in range(3)]
        optimizer = LearnedOptimizer(full_memory())
        variables = make_variables()
        for gradients in steps:
            apply(optimizer, gradients, variables)
        values, rule_states = by_the_rule(full_memory(), steps)
        assert_close(numpy(variables), values, rtol=1e-3, atol=1e-4)
        # A row for each of the 15 elements, besides gradient, update and controller.
        assert [s.shape[0] for s in rule_states] == [2 + 15 + 8] * 4
        assert_close(states(optimizer, variables), rule_states, rtol=1e-3, atol=1e-4)

    def test_each_group_is_a_problem_of_its_own(self):
        steps = [make_gradients(step) for step in range(3)]
        optimizer = LearnedOptimizer({"variable_[02]": full_memory(1), ".*": full_memory(2)})
        variables = make_variables()
        for gradients in steps:
            apply(optimizer, gradients, variables)
        for seed, members in ((1, (0, 2)), (2, (1, 3))):
            own_steps = [[gradients[i] for i in members] for gradients in steps]
            values, _ = by_the_rule(full_memory(seed), own_steps)
            own = [variables[i] for i in members]
            assert_close(numpy(own), values, rtol=1e-3, atol=1e-4)

    @pytest.mark.filterwarnings("ignore:Gradients do not exist")
    def test_a_missing_gradient_is_taken_as_zero(self):
        optimizers = [LearnedOptimizer(full_memory()) for _ in range(2)]
        with_none, with_zeros = make_variables(), make_variables()
        for step in range(4):
            gradients = make_gradients(step)
            if step in (1, 2):
                gradients[2] = np.zeros_like(gradients[2])
            apply(optimizers[1], gradients, with_zeros)
            if step in (1, 2):
                gradients[2] = None
            before = numpy(with_none[2:3])
            apply(optimizers[0], gradients, with_none)
            if step in (1, 2):  # It is not moved, though the others learn of it.
                assert_equal(numpy(with_none[2:3]), before)
        others = [0, 1, 3]
        assert_close(
            numpy(with_none[i] for i in others),
            numpy(with_zeros[i] for i in others),
            rtol=1e-4,
            atol=1e-5,
        )
        assert_close(
            states(optimizers[0], with_none),
            states(optimizers[1], with_zeros),
            rtol=1e-3,
            atol=1e-4,
        )

    def test_a_full_memory_is_trained_with_and_saved(self, tmp_path):
        model = regression_model(LearnedOptimizer(full_memory()))
        losses = fit(model, 4)
        assert np.all(np.isfinite(losses))
        model.save(tmp_path / "model.keras")
        loaded = load_strictly(tmp_path / "model.keras")
        assert_equal(numpy(loaded.optimizer.variables), numpy(model.optimizer.variables))
        for some in (model, loaded):
            fit(some, 3)
        assert_equal(loaded.get_weights(), model.get_weights())


class TestPresets:
    def test_a_preset_gives_the_same_updates(self, tmp_path):
        rule = lstm()
        rule.set_weights([w + 0.1 for w in rule.get_weights()])
        LearnedOptimizer(rule).save_to_preset(tmp_path / "mine")
        optimizer = LearnedOptimizer.from_preset(tmp_path / "mine", learning_rate=0.5, name="x")
        expected = LearnedOptimizer(rule, learning_rate=0.5)
        assert_equal(numpy(train(optimizer)), numpy(train(expected)))
        assert optimizer.name == "x"

    def test_a_preset_has_a_card(self, tmp_path):
        optimizer = LearnedOptimizer(lstm())
        optimizer.save_to_preset(tmp_path / "mine")
        assert json.loads((tmp_path / "mine" / "card.json").read_text()) == {"name": "mine"}
        optimizer.save_to_preset(tmp_path / "mine", {"task": "quadratic"})
        assert json.loads((tmp_path / "mine" / "card.json").read_text()) == {"task": "quadratic"}

    def test_groups_of_a_preset_give_the_same_updates(self, tmp_path):
        groups = {"variable_[01]": lstm(), ".*": RULES["ntm_bfgs"](3)}
        LearnedOptimizer(groups).save_to_preset(tmp_path / "mine")
        optimizer = LearnedOptimizer.from_preset(tmp_path / "mine", learning_rate=0.5)
        expected = LearnedOptimizer(groups, learning_rate=0.5)
        assert_equal(numpy(train(optimizer)), numpy(train(expected)))

    def test_a_group_of_a_keras_optimizer_is_in_no_preset(self, tmp_path):
        optimizer = LearnedOptimizer({"a": keras.optimizers.SGD(), ".*": lstm()})
        with pytest.raises(ValueError, match="Every group must have an update rule.*'a'"):
            optimizer.save_to_preset(tmp_path / "mine")
        assert not (tmp_path / "mine").exists()


class TestSkippedSteps:
    def test_are_logged_and_warned_of(self):
        x, y = regression_data()
        model = regression_model(LearnedOptimizer(lstm()))
        history = model.fit(x, y, callbacks=[SkippedSteps()], verbose=0)
        assert history.history["skipped_steps"] == [0]
        x[[0, 4], 0] = np.nan
        callbacks = [SkippedSteps()]
        with pytest.warns(UserWarning, match="2 steps of epoch 1 were skipped"):
            history = model.fit(
                x, y, batch_size=4, epochs=1, shuffle=False, verbose=0, callbacks=callbacks
            )
        assert history.history["skipped_steps"] == [2]
        assert np.all(np.isfinite(model.get_weights()[0]))


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
