"""Tests of meta-training as a Keras model."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from l2l_keras.meta import (
    BackPropagation,
    Backup,
    InnerLoop,
    KeepBest,
    MetaModel,
    PersistentEvolution,
    Windows,
    schedule,
)
from l2l_keras.rules import CoordinatewiseLSTM
from l2l_keras.tasks import KerasTask, Mixture, Quadratic
from tests.meta.problems import RATE, Descent


class Recording(Quadratic):
    """Notes which optimizees and, where nothing is compiled, which minibatches are drawn."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.drawn = []
        self.batches = []

    def sample(self, split, seed):
        self.drawn.append((split, seed))
        return super().sample(split, seed)

    def batch(self, split, seed):
        if tf.executing_eagerly():
            self.batches.append((split, *seed.numpy()))
        return super().batch(split, seed)


class Fragile(Recording):
    """Its losses or gradients are not finite from some step on, in some training episodes.

    Args:
        losses: For such an episode, the first step whose loss is infinite.
        gradients: The same of the gradient, which is not a number.
    """

    def __init__(self, losses, gradients):
        super().__init__(dimension=2, functions=3)
        self.broken = losses, gradients

    def sample(self, split, seed):
        parameters, state = super().sample(split, seed)
        never = 1000
        broken = [steps.get(seed, never) if split == "train" else never for steps in self.broken]
        first_steps = tf.constant(broken)
        return parameters, (state, tf.constant(0), first_steps)

    def loss_and_gradient(self, parameters, state, batch):
        state, step, first_steps = state
        losses, gradient, state = super().loss_and_gradient(parameters, state, batch)
        losses = tf.where(step >= first_steps[0], math.inf, losses)
        gradient = tf.where(step >= first_steps[1], math.nan, gradient)
        return losses, gradient, (state, step + 1, first_steps)


def numpy_descent(optimizee, steps, factors=None):
    """Losses `[steps, functions]` of gradient descent in float64, after every step."""
    factors = np.ones(steps) if factors is None else factors
    w, y = (part.numpy().astype("float64") for part in optimizee[1])
    theta = optimizee[0].numpy().astype("float64").reshape(y.shape)
    losses = []
    for factor in factors[:steps]:
        residuals = np.einsum("kij,kj->ki", w, theta) - y
        theta = theta - factor * RATE * 2 * np.einsum("kij,ki->kj", w, residuals)
        losses.append(((np.einsum("kij,kj->ki", w, theta) - y) ** 2).sum(axis=1))
    return np.array(losses)


def lstm(seed=0):
    return CoordinatewiseLSTM((3,), "none", seed=seed)


def small_task():
    return Recording(dimension=3, functions=4)


def make_model(
    rule=None,
    task=None,
    optimizer=None,
    horizon=10,
    estimator=None,
    parallel=1,
    optimizees=None,
    seed=0,
    schedule="constant",
    **windows,
):
    windows = Windows(**{"unroll": 5, **windows})
    rule, task = rule or Descent(), task or small_task()
    model = MetaModel(
        rule, task, horizon, estimator, windows, parallel, optimizees, seed, schedule=schedule
    )
    model.compile(optimizer or keras.optimizers.SGD(0.0))
    return model


def fit(model, **arguments):
    arguments = {"windows": 4, "validation_episodes": 2, "verbose": 0, **arguments}
    return model.fit(**arguments).history


def moved(model):
    """How far meta-training has moved the rate of `Descent`."""
    return float(model.rule.log_rate.value) - math.log(RATE)


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


class TestFit:
    def test_it_improves_a_rule_on_quadratics(self):
        model = make_model(
            CoordinatewiseLSTM((8,), "none", seed=0),
            Quadratic(4, 16),
            keras.optimizers.Adam(1e-2, global_clipnorm=1.0),
            horizon=20,
            unroll=10,
        )
        validation = tf.data.Dataset.range(3)
        untrained = model.evaluate(validation, return_dict=True, verbose=0)
        history = fit(model, epochs=2, windows=75, validation_episodes=3)
        assert sorted(history) == ["loss", "skipped", "val_final_loss", "val_loss"]
        assert history["skipped"] == [0, 0]
        assert history["val_final_loss"][-1] < 0.5 * untrained["final_loss"]
        assert history["val_final_loss"][-1] < history["val_loss"][-1] < untrained["loss"]
        assert history["loss"][1] < history["loss"][0]

    def test_seeds_decide_the_weights_and_the_episodes(self, eagerly):
        def run(rule_seed, seed):
            task = small_task()
            model = make_model(
                lstm(rule_seed), task, keras.optimizers.Adam(1e-2), horizon=5, seed=seed
            )
            task.drawn.clear()
            fit(model, windows=3, validation_episodes=0)
            return np.concatenate([w.ravel() for w in model.rule.get_weights()]), task.drawn

        first, drawn = run(0, seed=1)
        np.testing.assert_array_equal(run(0, seed=1)[0], first)
        other, other_drawn = run(0, seed=511)
        assert not np.allclose(other, first)
        assert len({*drawn, *other_drawn}) == 6
        assert not np.allclose(run(1, seed=1)[0], first)

    @pytest.mark.parametrize(
        ("meta_loss", "step_weights"), [("mean", "uniform"), ("log_relative", "linear")]
    )
    def test_its_losses_are_those_of_the_formula(self, meta_loss, step_weights, eagerly):
        """φ is frozen; there are three windows, and two in an episode."""
        task = small_task()
        model = make_model(task=task, meta_loss=meta_loss, step_weights=step_weights)
        history = fit(model, windows=3)
        progress = np.arange(1, 11, dtype="float32") / 10
        expected = []
        for episode, start in ((0, 0), (0, 5), (1, 0)):
            optimizee = task.sample("train", episode)
            own = slice(start, start + 5)
            losses = numpy_descent(optimizee, 10)[own].astype("float32")
            initial = task.loss(*optimizee, ())[0]
            expected.append(model.windows.loss(losses, initial, progress[own]))
        assert history["loss"] == [pytest.approx(np.mean(expected), rel=1e-4)]

    def test_the_meta_gradient_is_clipped_as_the_optimizer_says(self, eagerly):
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1e-3)
        model = make_model(lstm(), optimizer=optimizer)
        before = model.rule.get_weights()
        fit(model, windows=1, validation_episodes=0)
        moves = [a - b for a, b in zip(model.rule.get_weights(), before, strict=True)]
        norm = math.sqrt(sum(np.sum(m.astype("float64") ** 2) for m in moves))
        assert norm == pytest.approx(1e-3, rel=1e-2)

    def test_a_random_scale_is_for_training_only(self, eagerly):
        plain, scaled = (
            fit(make_model(random_scale=random_scale), windows=2) for random_scale in (0.0, 2.0)
        )
        assert scaled["loss"] != pytest.approx(plain["loss"], rel=1e-3)
        assert scaled["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-6)

    def test_windows_are_those_of_episodes(self, eagerly):
        assert make_model(horizon=20, parallel=2).windows_of(6) == 12
        assert make_model(horizon=(5, 20)).windows_of(10) == round(20 * 0.75 / math.log(4) / 5 * 10)
        assert make_model(horizon=5, parallel=8).windows_of(1) == 1


class TestEpisodes:
    def test_an_optimizee_is_drawn_afresh_after_every_horizon(self, eagerly):
        task = small_task()
        model = make_model(task=task, horizon=15)
        task.drawn.clear()
        fit(model, epochs=2, windows=4, validation_episodes=0)
        # Eight windows of five steps: the third optimizee gets ten.
        assert task.drawn == [("train", 0), ("train", 1), ("train", 2)]

    def test_every_step_has_a_minibatch_of_its_own_from_its_own_split(self, eagerly):
        task = small_task()
        model = make_model(task=task)
        runs = {
            "train": lambda: fit(model, windows=6, validation_episodes=0),
            "validation": lambda: model.evaluate(tf.data.Dataset.range(3), verbose=0),
        }
        for split, start in runs.items():
            task.batches.clear()
            start()
            # Three episodes of ten steps, and a minibatch at the beginning of each.
            assert [batch[0] for batch in task.batches] == [split] * 33
            assert len(set(task.batches)) == 33

    def test_validation_optimizees_are_the_same_after_every_epoch(self, eagerly):
        task = small_task()
        model = make_model(task=task, horizon=20, unroll=10)
        history = fit(model, epochs=3, validation_episodes=3)
        assert len(set(history["val_loss"])) == len(set(history["val_final_loss"])) == 1
        drawn = [seed for split, seed in task.drawn if split == "validation"]
        assert drawn == [0, 1, 2]

        # The last tenth of the horizon are two steps.
        losses = [numpy_descent(task.sample("validation", seed), 20) for seed in range(3)]
        assert history["val_loss"][0] == pytest.approx(np.mean(losses), rel=1e-4)
        final = np.mean([episode[-2:] for episode in losses])
        assert history["val_final_loss"][0] == pytest.approx(final, rel=1e-4)

    @pytest.mark.parametrize("staggered", [False, True])
    @pytest.mark.parametrize("estimator", [None, PersistentEvolution(1, 1e-6)])
    def test_learning_rates_follow_a_schedule(self, estimator, staggered, eagerly):
        task = small_task()
        factors = 0.5 + 0.5 * np.cos(np.pi * np.minimum(np.arange(15) / 10, 1.0))
        model = make_model(
            task=task, estimator=estimator, schedule="cosine", staggered=staggered, seed=1
        )
        history = fit(model, windows=2)
        losses = [numpy_descent(task.sample("validation", s), 10, factors) for s in range(2)]
        assert history["val_loss"][0] == pytest.approx(np.mean(losses), rel=1e-4)
        training = numpy_descent(task.sample("train", 2**20), 15, factors)
        # Of both windows of an episode, which begins at its first step or at one of the next four.
        possible = [training[k : k + 10].mean() for k in range(5 if staggered else 1)]
        assert any(history["loss"][0] == pytest.approx(mean, rel=1e-4) for mean in possible)

    def test_validation_changes_neither_the_rule_nor_the_episode(self, eagerly):
        models = [make_model(lstm(), optimizer=keras.optimizers.SGD(0.1)) for _ in range(2)]
        losses = [
            fit(model, epochs=2, windows=3, validation_episodes=episodes)["loss"]
            for model, episodes in zip(models, (0, 5), strict=True)
        ]
        assert losses[0] == losses[1]
        assert equal(*(model.rule.get_weights() for model in models))

    def test_an_optimizee_ends_at_its_own_horizon(self, eagerly):
        task = small_task()
        model = make_model(task=task, horizon=(5, 20), seed=3)
        task.drawn.clear()
        lengths = []
        for _ in range(14):
            before = len(task.drawn)
            model.train_step(None)
            lengths += [0] * (len(task.drawn) - before)
            lengths[-1] += 5
        assert len({*lengths}) > 1
        expected = [schedule.horizon(3, number, 5, 20, 5) for number in range(len(lengths))]
        assert lengths[:-1] == expected[:-1]

    def test_optimizees_may_come_again_with_other_minibatches(self, eagerly):
        task = small_task()
        model = make_model(task=task, optimizees=2)
        task.drawn.clear()
        task.batches.clear()
        fit(model, windows=10, validation_episodes=0)
        assert task.drawn == [("train", 0), ("train", 1)]
        assert len(set(task.batches)) == len(task.batches) == 55

    def test_staggered_windows_begin_after_some_steps(self, eagerly):
        task = small_task()
        model = make_model(task=task, horizon=5, staggered=True)
        starts = []
        for episode in range(10):
            task.batches.clear()
            model.reset_metrics()
            loss = model.train_step(None)["loss"]
            # Minibatches at the start, for each step before the window, and for its five steps.
            starts.append(len(task.batches) - 6)
            losses = numpy_descent(task.sample("train", episode), starts[-1] + 5)[-5:]
            assert float(loss) == pytest.approx(losses.mean(), rel=1e-4)
        assert {*starts} <= {*range(5)}
        assert len({*starts}) > 2


class TestSideBySide:
    def test_the_meta_gradient_is_the_mean_over_optimizees(self, eagerly):
        task = small_task()
        model = make_model(task=task, optimizer=keras.optimizers.SGD(0.1), parallel=3)
        history = fit(model, windows=1, validation_episodes=0)
        single = make_model(task=task, optimizer=keras.optimizers.SGD(0.1), horizon=5)
        losses, moves = [], []
        for _ in range(3):
            single.rule.log_rate.assign(math.log(RATE))
            losses += fit(single, windows=1, validation_episodes=0)["loss"]
            moves.append(moved(single))
        assert history["loss"][0] == pytest.approx(np.mean(losses), rel=1e-5)
        assert moved(model) == pytest.approx(np.mean(moves), rel=1e-4)
        assert len({*moves}) == 3

    def test_one_that_is_not_finite_does_not_count(self, eagerly):
        broken = make_model(
            task=Fragile(losses={1: 0}, gradients={}),
            optimizer=keras.optimizers.SGD(0.1),
            parallel=2,
        )
        whole = make_model(
            task=Fragile(losses={}, gradients={}), optimizer=keras.optimizers.SGD(0.1)
        )
        assert fit(broken, windows=1, validation_episodes=0)["skipped"] == [1]
        fit(whole, windows=1, validation_episodes=0)
        assert float(broken.rule.log_rate.value) == pytest.approx(
            float(whole.rule.log_rate.value), rel=1e-6
        )

    def test_one_whose_meta_gradient_explodes_counts_no_more_than_others(self, eagerly):
        def move(**arguments):
            model = make_model(optimizer=keras.optimizers.SGD(1.0), parallel=2, **arguments)
            fit(model, windows=1, validation_episodes=0)
            return abs(moved(model))

        assert move() > 1e-2
        # Both windows go down, and each may move φ by half of so much.
        assert move(clip_norm=1e-3) == pytest.approx(1e-3, rel=1e-2)


class TestMixture:
    def make(self, parallel=2, **arguments):
        tasks = {name: Recording(dimension=k + 2, functions=2) for k, name in enumerate("abcd")}
        mixture = Mixture({name: tasks[name] for name in "abc"}, {"d": tasks["d"]})
        model = make_model(lstm(), mixture, parallel=parallel, **arguments)
        for task in tasks.values():
            task.drawn.clear()
        return model, tasks

    @pytest.mark.parametrize("parallel", [1, 4])
    def test_members_take_turns(self, parallel, eagerly):
        model, tasks = self.make(parallel, horizon=5)
        fit(model, windows=3, validation_episodes=0)
        drawn = [len(tasks[name].drawn) for name in "abc"]
        assert sum(drawn) == 3 * parallel
        # As often as one another; with two optimizees of each member, but for a turn.
        assert max(drawn) - min(drawn) <= (2 if parallel == 4 else 0)
        seeds = [seed for name in "abc" for _, seed in tasks[name].drawn]
        assert sorted(seeds) == list(range(3 * parallel))

    def test_validation_is_on_other_tasks_by_geometric_means(self, eagerly):
        model, tasks = self.make()
        start = model.rule.get_weights()
        history = fit(model, windows=1, validation_episodes=2)
        assert tasks["d"].drawn == [("validation", 0), ("validation", 1)]
        assert all(split == "train" for name in "abc" for split, _ in tasks[name].drawn)
        assert equal(model.rule.get_weights(), start)  # The learning rate is zero.
        loop = InnerLoop(model.rule, tasks["d"])
        losses = [
            loop.rollout(*tasks["d"].sample("validation", seed), lambda step: (), 10)[1:]
            for seed in range(2)
        ]
        expected = np.exp(np.log(np.mean(losses, axis=(1, 2))).mean())
        assert history["val_loss"] == [pytest.approx(expected, rel=1e-4)]

    def test_a_task_is_a_mixture_of_one(self, eagerly):
        """But for the mean over validation optimizees, which is the arithmetic one."""
        task = small_task()
        models = [
            make_model(lstm(), each, keras.optimizers.Adam(1e-2))
            for each in (
                task,
                Mixture({"a": task}),
                Mixture({"a": task}, validation_mean="arithmetic"),
            )
        ]
        histories = [fit(model) for model in models]
        for model in models[1:]:
            assert equal(model.rule.get_weights(), models[0].rule.get_weights())
        assert histories[0] == histories[2]
        assert histories[0]["val_loss"] != histories[1]["val_loss"]

    def test_all_of_it_resumes(self, tmp_path, eagerly):
        def run(folder, epochs):
            model, _ = self.make(horizon=(5, 20), staggered=True, random_scale=0.5)
            model.compile(keras.optimizers.Adam(1e-2))
            backup = Backup(folder)
            start = backup.restore(model)
            fit(model, epochs=epochs, initial_epoch=start, windows=3, callbacks=[backup])
            return model.rule.get_weights()

        run(tmp_path / "a", 2)
        assert equal(run(tmp_path / "a", 3), run(tmp_path / "b", 3))


class TestWindowsThatAreNotFinite:
    def test_they_change_nothing_and_end_their_episode(self, eagerly):
        # In episode 0, the gradient at the end of the first window is not a number, though all
        # losses are; in episode 1, a loss of the second window is infinite; in episode 3, all are.
        task = Fragile(losses={1: 8, 3: 0}, gradients={0: 5})
        model = make_model(lstm(), task, keras.optimizers.Adam(1e-2))
        task.drawn.clear()
        variables = [*model.rule.variables, *model.optimizer.variables]
        expected = [
            # (episode, whether the window is skipped)
            (0, True),
            (1, False),
            (1, True),
            (2, False),
            (2, False),
            (3, True),
            (4, False),
        ]
        skipped = 0
        for episode, broken in expected:
            before = [v.numpy().copy() for v in variables]
            logs = model.train_step(None)
            skipped += broken
            assert task.drawn[-1] == ("train", episode)
            assert int(logs["skipped"]) == int(model.skipped) == skipped
            same = [np.array_equal(v.numpy(), b) for v, b in zip(variables, before, strict=True)]
            assert all(same) if broken else not any(same[: len(model.rule.variables)])
            assert all(np.isfinite(v.numpy()).all() for v in variables)
            # NaN, as long as no window has counted: zero would look like a perfect loss.
            assert np.isfinite(logs["loss"]) == (not broken or episode > 0)
        assert int(model.optimizer.iterations) == 4

    def test_where_the_meta_gradient_alone_overflows_the_episode_goes_on(self, eagerly):
        class Root(Descent):
            """Its derivative by a rate of zero is infinite."""

            def step(self, gradient, state):
                return -ops.sqrt(ops.convert_to_tensor(self.weights[0])) * gradient, state

        rule = Root()
        rule.set_weights([0.0 * weight for weight in rule.get_weights()])
        task = Fragile(losses={}, gradients={})
        model = make_model(rule, task, keras.optimizers.SGD(0.1))
        task.drawn.clear()
        episodes = []
        for _ in range(3):
            logs = model.train_step(None)
            episodes.append(task.drawn[-1][1])
        assert int(logs["skipped"]) == 3
        assert episodes == [0, 0, 1]


def line(x=None, y=None):
    """A task with a kernel and a bias."""

    def model_fn():
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])

    if x is None:
        x = np.random.default_rng(0).normal(size=(40, 2))
        y = x @ [[3.0], [-2.0]] + 1.0
    return KerasTask(model_fn, "mse", (x.astype("float32"), y.astype("float32")), batch_size=8)


class TestGroups:
    def test_each_moves_along_its_own_part_of_the_meta_gradient(self, eagerly):
        """Two rates, of the kernel and of the bias, by differences in float64."""
        x, y = np.array([1.0, -2.0]), 3.0
        # The same example all over: minibatches do not matter.
        task = line(np.tile(x, (10, 1)), np.full((10, 1), y))
        rules = {"kernel": Descent(), "bias": Descent()}
        estimator = BackPropagation(second_derivatives=True)
        model = make_model(rules, task, keras.optimizers.SGD(0.1), estimator=estimator)
        fit(model, windows=1, validation_episodes=0)
        moves = [float(rule.log_rate.value) - math.log(RATE) for rule in rules.values()]

        def meta_loss(log_rates):
            theta = task.sample("train", 0)[0].numpy().astype("float64")
            design = np.array([*x, 1.0])
            losses = []
            for _ in range(5):
                theta = theta - np.exp(log_rates[[0, 0, 1]]) * 2 * design * (design @ theta - y)
                losses.append((design @ theta - y) ** 2)
            return np.mean(losses)

        start, steps = np.full(2, math.log(RATE)), 1e-4 * np.eye(2)
        slopes = [(meta_loss(start + e) - meta_loss(start - e)) / 2e-4 for e in steps]
        assert moves == pytest.approx([-0.1 * slope for slope in slopes], rel=1e-3)
        assert abs(moves[0] / moves[1]) > 2

    def test_the_best_weights_of_all_are_put_back(self, eagerly):
        rules = {"bias": Descent(), ".*": lstm()}
        model, keep_best = make_model(rules, line()), KeepBest()
        keep_best.set_model(model)
        keep_best.on_test_end({"final_loss": 1.0})
        expected = [rule.get_weights() for rule in rules.values()]
        for rule in rules.values():
            rule.set_weights([w + 1.0 for w in rule.get_weights()])
        keep_best.restore()
        for rule, weights in zip(rules.values(), expected, strict=True):
            assert equal(rule.get_weights(), weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 10, "unroll": 3}, "`horizon` must be .*Received: horizon=10, unroll=3"),
        ({"horizon": 0}, "`horizon` must be .*Received: horizon=0"),
        ({"horizon": (20, 10)}, r"`horizon` must be .*Received: horizon=\(20, 10\)"),
        ({"horizon": (5, 12)}, r"`horizon` must be .*Received: horizon=\(5, 12\)"),
        ({"horizon": 5, "unroll": 10}, "`horizon` must be .*Received: horizon=5"),
        ({"optimizees": 0}, "`optimizees` must be positive or None. Received: optimizees=0"),
        ({"parallel": 0.5}, "`parallel` must be positive. Received: parallel=0.5"),
        ({"parallel": 0}, "`parallel` must be positive. Received: parallel=0"),
        ({"seed": -1}, "`seed` must be .*Received: seed=-1"),
        ({"unroll": 0}, "`unroll` must be positive. Received: unroll=0"),
        ({"clip_norm": 0.0}, "`clip_norm` must be positive or None. Received: clip_norm=0.0"),
        ({"random_scale": -1.0}, "`random_scale` must .*Received: random_scale=-1.0"),
        (
            {"random_scale_of": "row"},
            "must be one of .*Received: random_scale_of='row'",
        ),
        ({"meta_loss": "sum"}, "`meta_loss` must be one of .*'log'.*Received: meta_loss='sum'"),
        ({"step_weights": "no"}, "`step_weights` must be one of .*Received: step_weights='no'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_model(**arguments)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
