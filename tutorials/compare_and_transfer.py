"""
Title: Compare and transfer
Author: l2l_keras authors
Date created: 2026/12/01
Last modified: 2026/12/01
Description: Find out in one call whether a learned optimizer pays for your models, and for which of them.
Accelerator: None
"""

"""
## What you will have

An answer, with the figures behind it: should you adopt a learned optimizer for your models? `l2l_keras.study`
specialises a preset on a small problem that represents yours, compares it with optimizers that are tuned, tries
it on other problems that you name, and writes a report of one page. You will

1. describe the problems;
2. run the study;
3. read its decision, and how far the optimizer transfers;
4. see after how many training runs the effort has paid.

This took 159 seconds of processor time, and downloads nothing. A real study takes longer: ten minutes of
meta-training instead of half a minute.

## Describe the problems

The *representative* problem should be small, since everything is trained on it many times. *Targets* are what
you really train: larger models, other data, longer runs. Here, the representative is a small network for digits,
and the target has layers that are four times as wide. The data come with scikit-learn.
"""

import math

import keras
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.utils import shuffle

import l2l_keras
from l2l_keras import evaluation, studies, tasks

x, y = shuffle(*load_digits(return_X_y=True), random_state=0)
x = (x / 16).astype("float32")


def make_task(name, units):
    def model_fn():
        hidden = [keras.layers.Dense(units, "relu") for _ in range(2)]
        model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, metrics=["accuracy"])
        return model

    return tasks.KerasTask(model_fn, dataset=(x, y), batch_size=32, name=name)


plan = studies.Plan(
    task=make_task("digits", units=32),
    steps=100,
    targets={"wider": make_task("wider", units=128)},
)
for name, problem in plan.problems.items():
    print(f"{name}: {problem.task.size:,} weights, runs of {plan.steps_of(name)} steps")

"""
## Run the study

Results are kept in a folder. If the program is interrupted, the same call goes on where it was. `progress` gets
a line whenever something is done; we keep the lines, and show a few.
"""

log = []
study = l2l_keras.study(
    plan,
    "study",
    minutes=0.35,
    seeds=5,
    tuning_seeds=2,
    baselines=("Adam", "AdamW + cosine"),
    progress=log.append,
)
print(*log[::6], sep="\n")

"""
## The decision
"""

print(study.decision.value)
print()
print(study.verdict.replace(". ", ".\n"))

"""
The answer is one of four: adopt, adopt with guard, adopt for these problems only, do not adopt. Two things
count: the loss on images held out at the end of a run, and the seconds until the rival's final loss is reached.
Here, the rule needs about two thirds of the steps to get as low as AdamW at its best rate. But in networks so
small, the optimizer is most of the work of a step, so that it needs more seconds: the study does not recommend
it. That is an answer, too, and it took three minutes instead of a project.

The table of the representative problem shows everything that was compared. Besides the specialised rule, with
and without a guard, there is the preset that it comes from, with and without a learning rate that falls.
"""

outcome = study.outcome
print(evaluation.table(outcome.problems["digits"].comparison))

"""
## How far does it transfer?

For each problem, the rule is compared with the best optimizer that was tuned *on that problem*. There is a
second question: would the learning rate from the representative problem have done? If so, tuning transfers as
well as the rule does.
"""

for name, verdict in outcome.verdicts.items():
    print(f"{name}: the best tuned optimizer is {verdict.rival.name}")
    print(f"  loss of the specialised rule: {verdict.standing.words}")
    print(f"  of {outcome.first_rival.name} with its rate for digits: {verdict.kept.words}")
    print(f"  as low in no more seconds: {'yes' if verdict.as_soon else 'no'}")

figure, axes = plt.subplots(figsize=(6.4, 2.6), dpi=80, layout="constrained")
for k, verdict in enumerate(outcome.verdicts.values()):
    for shift, standing, style in ((-0.1, verdict.standing, "o"), (0.1, verdict.kept, "s")):
        ratio = standing.ratio
        axes.plot([ratio.low, ratio.high], [k + shift] * 2, "-", color="gray")
        axes.plot(ratio.mean, k + shift, style, color="C0" if style == "o" else "C1")
axes.axvline(1.0, color="black", linewidth=0.8)
axes.plot([], [], "oC0", label="specialised rule")
axes.plot([], [], "sC1", label=f"{outcome.first_rival.name}, rate of digits")
axes.set(yticks=range(len(outcome.verdicts)), yticklabels=outcome.verdicts, ylim=(1.6, -0.6))
axes.set(xlabel="held-out loss / that of the best tuned optimizer", xlim=(0, 1.5))
axes.legend(frameon=False, loc="lower left")
plt.show()

"""
On the wider networks, the rule is ahead by still more, although it has only seen small ones. AdamW transfers,
too: its rate for the small networks does for the wide ones.

Compare with `general-fast` in the table: it ends no higher than the specialised rule, though with more scatter
between runs. Less than half a minute of meta-training is not much: ten minutes are a real attempt. Seconds are
those of a clock: run a study on an idle machine.

## When has it paid?

Meta-training is a price that you pay once. Each run then takes less than one of the rival, if the rule reaches
the rival's final loss sooner; and nothing has to be tuned.
"""

first = outcome.verdicts["digits"]
print(f"meta-training: {outcome.training.seconds:.0f} s, {outcome.training.steps:,} steps")
print(
    f"tuning {first.rival.name}: {first.rival.tuning.seconds:.1f} s, {first.rival.tuning.runs} runs"
)
for tuned, paid in (("anew for every run", first.anew), ("once", first.once)):
    for unit in ("steps", "seconds"):
        runs = paid[unit].first
        when = f"after {runs} runs" if math.isfinite(runs) else "never"
        print(f"paid in {unit}, if the rival is tuned {tuned}: {when}")

"""
Each run of this problem takes a fraction of a second, and so does all of AdamW's tuning. Against a rival that
must be tuned anew for every problem, meta-training has paid after dozens of runs; against one that is tuned
once, it never has in seconds. Look at *steps* if your own models are so large that the optimizer's share of
a step is small.

## The report

All of this, and more, is on a page that you can send to others:
"""

print(study.report)
figure, axes = plt.subplots(figsize=(6.4, 4.8), dpi=80, layout="constrained")
axes.imshow(plt.imread("study/break_even.png"))
axes.axis("off")
plt.show()

"""
Open it with your browser, from Python by `webbrowser.open(study.report.resolve().as_uri())`. Beside it are the
charts as images and the numbers as CSV and JSON. `lang="ja"` writes it in Japanese, and `cost_per_hour=2.5` tells
break-even in money. The specialised preset is ready to use:
"""

print(study.preset)
schedule = keras.optimizers.schedules.CosineDecay(1.0, 100)
print(l2l_keras.LearnedOptimizer.from_preset(study.preset, learning_rate=schedule))

"""
## Where to go next

- The same as a command: `l2l-transfer --study=study.py --output_dir=study --jobs=2`, where `study.py` has a
  function `make_plan` that returns the plan.
- [Specialise a preset](specialise_a_preset.ipynb) shows the first part of a study step by step.
- [Forecast many series](forecast_many_series.ipynb) counts the cost of retraining for a year.
"""
