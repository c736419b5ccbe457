"""A study: does a learned optimizer pay for models like these?

Change the model, the data and the targets to yours, then run

    l2l-transfer --study=study.py --output_dir=my_study

and open my_study/report.html. The same command goes on where an interrupted one has stopped.
"""

import keras
import sklearn.datasets

from l2l_keras.studies import Plan, Target
from l2l_keras.tasks import KerasTask

# Updates of a training run, as many as you really take: epochs * examples / batch size.
STEPS = 300


def model_fn(units=32, layers=1, activation="relu"):
    """Returns a new, compiled model, as you would pass it to `fit`. Choose a small one."""
    hidden = [keras.layers.Dense(units, activation) for _ in range(layers)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def data(negative):
    """Returns the examples: whatever `fit` takes, such as arrays or a `tf.data.Dataset`."""
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    return (1.0 - images / 16.0 if negative else images / 16.0), labels


def task(negative=False, batch_size=32, **options):
    """Returns a model with its data. 30 % of the examples are held out of its training."""
    return KerasTask(
        lambda: model_fn(**options), dataset=data(negative), batch_size=batch_size, name="digits"
    )


def make_plan():
    """Returns the problem to meta-train on, and those that you will train later."""
    return Plan(
        task=task(),
        steps=STEPS,
        targets={
            "other data": task(negative=True),
            "wider": task(units=128),
            "deeper": task(layers=3),
            "another activation": task(activation="tanh"),
            "larger batches": task(batch_size=128),
            "longer": Target(task(), steps=3 * STEPS),
        },
    )
