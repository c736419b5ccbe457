"""The flags of `l2l-meta-train`."""

from absl import flags

from l2l_keras.scripts import _console

FLAGS = flags.FlagValues()
define = _console.define_in(FLAGS)
define.string(
    "task",
    "digits_mlp",
    f"What to train on: {', '.join(_console.TASKS)}, or a task of your own as "
    "package.module:function or path/to/file.py:function.",
)
define.multi_string("task_option", [], "Argument of the task, such as layers=(40,). Repeatable.")
define.string(
    "rule",
    "coordinatewise_lstm",
    "The update rule: coordinatewise_lstm (the paper's), momentum_lstm (sets the step sizes of "
    "momentum), rnnprop (sees gradients relative to their RMS), tensorwise_lstm (decides once for "
    "each tensor, at about Adam's price); or a preset, by name or folder, to train further: "
    "specialised, within --minutes, unless flags say how.",
)
define.multi_string("rule_option", [], "Argument of the rule, such as units=(20,20). Repeatable.")
define.multi_string(
    "group",
    [],
    "Regular expression of the variables that get a rule of their own, such as conv; a last one, "
    "'.*', takes the rest. Repeatable. By default, one rule for all.",
)
define.count("horizon", 100, "Inner steps of an episode.")
define.count("epochs", 15, "Epochs, each followed by a validation.")
define.count("episodes", 20, "Episodes (fresh optimizees) an epoch.")
define.integer("seed", 0, "Seed of everything.", lower_bound=0, upper_bound=2**29 - 1)

_BEFORE = frozenset(FLAGS)

define = _console.define_in(FLAGS, "Episodes")
define.count(
    "longest_horizon",
    None,
    "If set, each episode's horizon is drawn between --horizon and this, its logarithm uniformly.",
)
define.list("curriculum", [], "Growing horizons, such as 100,300,1000.")
define.count("unroll", 20, "Inner steps of a window; a divisor of --horizon and --longest_horizon.")
define.count("parallel", 1, "Optimizees side by side in an update.")
define.count(
    "optimizees", None, "Number of optimizees, which come again. By default, all are fresh."
)
define.count(
    "validation_episodes", 5, "Validation optimizees; the rule that is best on them is kept."
)
define.float(
    "random_scale", 0.0, "Largest |log s| of a random rescaling of parameters.", lower_bound=0.0
)
define.enum(
    "random_scale_of",
    "coordinate",
    ["coordinate", "tensor"],
    "Whether parameters or tensors are scaled.",
)
define.enum(
    "schedule",
    "constant",
    ["constant", "cosine"],
    "How the learning rate that multiplies updates changes in an episode: 1, or from 1 to 0.",
)
define.boolean("staggered", False, "Whether first windows begin after a random number of steps.")

define = _console.define_in(FLAGS, "Meta-loss and meta-gradients")
define.enum(
    "meta_loss",
    "mean",
    ["log", "log_mean", "log_relative", "log_window", "mean", "relative"],
    "What is minimized: the mean loss of a window, the mean of its logarithm, the logarithm of the "
    "mean over functions or over the window, or either of these relative to the initial loss.",
)
define.enum(
    "meta_loss_on",
    "training",
    ["training", "validation"],
    "Whether the meta-loss is of the minibatches that optimizees train on, or of examples that the "
    "task holds out, so that the rule learns not to memorize. Decides which weights are kept, too.",
)
define.enum(
    "step_weights",
    "uniform",
    ["final", "linear", "uniform"],
    "How an episode's steps count: all alike, growing towards its end, or its last fifth only.",
)
define.float("meta_learning_rate", 3e-3, "Adam's rate, which falls as a cosine.", lower_bound=0.0)
define.boolean(
    "backtrack",
    False,
    "Whether to go back to the best epoch, with half the rate, when validation is much worse.",
)
define.positive("meta_clip", 1.0, "Largest global norm of a meta-gradient.")
define.float(
    "ema_momentum",
    None,
    "If set, such as 0.998, a moving average of the rule's weights is validated and kept.",
    lower_bound=0.0,
    upper_bound=1.0 - 1e-12,
)
define.positive("window_clip", None, "If set, the largest norm of the meta-gradient of one window.")
define.boolean(
    "second_derivatives",
    False,
    "Whether to compute whole meta-gradients, at one Hessian-vector product a step. Learns more "
    "from long windows (--unroll). Not for models with batch normalization.",
)
define.boolean(
    "clip_through_time", False, "Whether to keep --second_derivatives from growing in time."
)
define.integer("pes_pairs", 0, "Pairs of inner loops for persistent evolution.", lower_bound=0)
define.positive(
    "pes_sigma", 0.01, "Standard deviation of the noise that --pes_pairs add to weights."
)
define.boolean(
    "pes_reuse_noise", False, "Whether --pes_pairs keep their noise for a whole episode."
)
define.positive("imitated_rate", None, "If set, the rule imitates Adam at this rate, as a start.")

# A preset is specialised if none of these is given: they say how to meta-train.
HOW_FLAGS = tuple(name for name in FLAGS if name not in _BEFORE)

# A resumed run takes these flags from its folder; those below may change.
RUN_FLAGS = tuple(FLAGS)

define = _console.define_in(FLAGS)
define.string("data_dir", None, "Folder of TensorFlow Datasets, for tasks that read it.")
define.boolean("download", True, "Whether to download a data set that is missing.")
define.string("output_dir", None, "Where all is written; a new folder in l2l_runs by default.")
define.positive(
    "minutes", None, "About how long to meta-train, instead of --epochs. 10 for a preset."
)
define.boolean("resume", False, "Resume the interrupted run in --output_dir, with its flags.")

define = _console.define_in(FLAGS, "Comparison and resources")
define.boolean("evaluate", True, "Whether to compare with tuned baselines at the end.")
define.count("seeds", 10, "Fresh test optimizees to compare on.")
define.string("description", None, "A line that describes the rule, for its card.")
define.integer(
    "cache_mb", 256, "Megabytes of activations to keep; see BackPropagation.", lower_bound=0
)
define.integer("threads", 0, "Processor threads; all by default.", lower_bound=0)
