"""Generated data for meta-training: regressions, tables, sequences and ratings.

All are drawn from a fixed seed, and cut into three parts, one for each split.
"""

from __future__ import annotations

import numpy as np

from l2l_keras.tasks.base import SPLITS

Array = np.ndarray
Data = dict[str, tuple[Array, Array]]


def thirds(x: Array, y: Array) -> Data:
    """Returns a third of the examples, which are in a random order, for each split."""
    parts = np.split(np.arange(len(x) // 3 * 3), 3)
    return {split: (x[part], y[part]) for split, part in zip(SPLITS, parts, strict=True)}


def mislabelled(data: Data, part: float) -> Data:
    """Returns data of which some labels are drawn at random: what cannot be learned but by heart.

    Args:
        data: For each split, examples and int labels from 0.
        part: Part of the labels that are drawn, the right ones among them.
    """
    random = np.random.default_rng(21)

    def drawn(labels: Array) -> Array:
        others = random.integers(labels.max() + 1, size=labels.shape)
        chosen = random.uniform(size=labels.shape) < part
        return np.where(chosen, others, labels).astype(labels.dtype)

    return {split: (x, drawn(np.asarray(y))) for split, (x, y) in data.items()}


def skewed(data: Data, skew: float = 0.8) -> Data:
    """Returns data whose columns have long tails on one side, as most that is measured has.

    Args:
        data: For each split, float32 examples `[examples, columns]` and their targets.
        skew: The most that a column is skewed: it becomes exp(skew x), of mean zero and variance
            one. Defaults to 0.8, of tails as long as those of lengths, areas and incomes.
    """
    random = np.random.default_rng(22)
    columns = data["train"][0].shape[1]
    skews = skew * random.uniform(0.2, 1.0, columns) * random.choice([-1.0, 1.0, 1.0], columns)

    def stretched(x: Array) -> Array:
        return np.sign(skews) * np.exp(skews * x)

    every = stretched(np.concatenate([x for x, _ in data.values()]))
    mean, deviation = every.mean(axis=0), every.std(axis=0)
    return {
        split: (((stretched(x) - mean) / deviation).astype("float32"), y)
        for split, (x, y) in data.items()
    }


def teacher(
    inputs: int, outputs: int, count: int = 6000, noise: float = 0.1, depth: int = 1
) -> Data:
    """Returns what a random network says of random inputs, and noise.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        count: Number of examples. Defaults to 6000.
        noise: Standard deviation of the noise; that of what there is to learn is one. Defaults
            to 0.1.
        depth: Hidden layers of the network, of 24 units each. Defaults to 1.
    """
    random = np.random.default_rng(11)
    x = hidden = random.normal(size=(count, inputs))
    for _ in range(depth):
        kernel = random.normal(size=(hidden.shape[1], 24))
        hidden = np.tanh(hidden @ kernel * 1.5 / np.sqrt(len(kernel)))
    y = hidden @ random.normal(size=(24, outputs))
    y = y / y.std() + noise * random.normal(size=y.shape)
    return thirds(x.astype("float32"), y.astype("float32"))


def field(outputs: int = 2, waves: int = 12, count: int = 12000) -> Data:
    """Returns the values of a smooth random field at places in the square [-1, 1]².

    Args:
        outputs: Values at a place. Defaults to 2.
        waves: Number of plane waves that it is the sum of. Defaults to 12.
        count: Number of examples. Defaults to 12000.
    """
    random = np.random.default_rng(12)
    x = random.uniform(-1.0, 1.0, size=(count, 2))
    frequencies = random.normal(size=(2, waves)) * 4.0
    phases = random.uniform(0.0, 2.0 * np.pi, size=waves)
    y = np.sin(x @ frequencies + phases) @ random.normal(size=(waves, outputs))
    return thirds(x.astype("float32"), (0.3 * y / y.std()).astype("float32"))


def regions(kinds: int, count: int = 12000) -> Data:
    """Returns places in the square [-1, 1]², and which of several random fields is largest there.

    Args:
        kinds: Number of fields.
        count: Number of examples. Defaults to 12000.

    Returns:
        For each split, float32 `[examples, 2]` and int32 `[examples]`.
    """
    fields = field(kinds, count=count)
    return {split: (x, y.argmax(axis=1).astype("int32")) for split, (x, y) in fields.items()}


def table(features: int = 20, count: int = 6000) -> Data:
    """Returns a table whose columns differ in size and shape, with two noisy classes.

    Args:
        features: Number of columns. Defaults to 20.
        count: Number of rows. Defaults to 6000.
    """
    random = np.random.default_rng(13)
    latent = random.normal(size=(count, 6))
    x = latent @ random.normal(size=(6, features)) + 0.5 * random.normal(size=(count, features))
    score = np.sin(x[:, 0]) + 0.5 * x[:, 1] * x[:, 2] + x[:, 3] + 0.7 * random.normal(size=count)
    # A quarter each as they are, skewed, in steps, and of other sizes.
    x[:, 0::4] *= 10.0 ** random.uniform(-1.0, 1.0, size=x[:, 0::4].shape[1])
    x[:, 1::4] = np.exp(0.7 * x[:, 1::4])
    x[:, 2::4] = np.round(x[:, 2::4])
    return thirds(x.astype("float32"), (score > 0.0).astype("float32")[:, None])


def clusters(kinds: int, features: int, count: int = 900, distance: float = 4.0) -> Data:
    """Returns points around a centre for each kind, with features that say much the same.

    Args:
        kinds: Number of kinds.
        features: Number of features, of mean zero and variance one.
        count: Number of points. Defaults to 900.
        distance: That of two centres, in standard deviations of points from their own. Defaults
            to 4, at which kinds overlap a little.
    """
    random = np.random.default_rng(20)
    labels = random.integers(kinds, size=count)
    centres = distance / np.sqrt(2.0 * features) * random.normal(size=(kinds, features))
    common = random.normal(size=(count, 4)) @ random.normal(size=(4, features)) / 2.0
    x = centres[labels] + 0.8 * common + 0.6 * random.normal(size=(count, features))
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return thirds(x.astype("float32"), labels.astype("int32"))


def correlated(features: int = 30, condition: float = 100.0, count: int = 6000) -> Data:
    """Returns a linear regression of a given condition number, with noise.

    Args:
        features: Number of features. Defaults to 30.
        condition: Ratio of the largest variance of a combination of them to the smallest.
            Defaults to 100.
        count: Number of examples. Defaults to 6000.
    """
    random = np.random.default_rng(14)
    rotation, _ = np.linalg.qr(random.normal(size=(features, features)))
    scales = condition ** (-0.5 * np.linspace(0.0, 1.0, features))
    x = (random.normal(size=(count, features)) * scales) @ rotation
    y = x @ rotation.T @ (random.normal(size=features) / scales) / np.sqrt(features)
    y = y + 0.05 * random.normal(size=count)
    return thirds(x.astype("float32"), y.astype("float32")[:, None])


def textures(kinds: int, size: int, count: int = 4500) -> Data:
    """Returns colour pictures of waves on a background that fades, whose kind is their direction.

    Neighbouring pixels are alike, and few are black, as in photographs.

    Args:
        kinds: Number of directions.
        size: Height and width in pixels.
        count: Number of pictures. Defaults to 4500.

    Returns:
        For each split, float32 `[examples, size, size, 3]` from 0 to 1, and int32 `[examples]`.
    """
    random = np.random.default_rng(22)
    labels = random.integers(kinds, size=count)
    angle = np.pi * (labels + random.normal(scale=0.2, size=count)) / kinds
    frequency = random.uniform(4.0, 12.0, size=count)
    places = np.linspace(-1.0, 1.0, size, dtype="float32")
    columns, rows = np.meshgrid(places, places)

    def plane(x: Array, y: Array) -> Array:
        return x[:, None, None] * columns + y[:, None, None] * rows

    waves = plane(frequency * np.cos(angle), frequency * np.sin(angle))
    waves = np.sin(waves + random.uniform(0.0, 2.0 * np.pi, size=(count, 1, 1)))
    fading = plane(*random.normal(size=(2, count)))
    colours = random.normal(size=(3, count, 1, 1, 3))
    x = 0.5 + 0.1 * colours[0] + 0.1 * fading[..., None] * colours[1]
    x = x + 0.1 * waves[..., None] * (1.0 + 0.3 * colours[2])
    x = x + random.normal(scale=0.05, size=x.shape)
    return thirds(np.clip(x, 0.0, 1.0).astype("float32"), labels.astype("int32"))


def tokens(vocabulary: int, length: int, count: int = 6000) -> Data:
    """Returns sequences of a Markov chain that now and then turns into another, and what follows.

    Args:
        vocabulary: Number of tokens.
        length: Tokens in a sequence.
        count: Number of sequences. Defaults to 6000.

    Returns:
        For each split, int32 `[examples, length]` tokens, and the tokens after each of them.
    """
    random = np.random.default_rng(15)
    chains = random.dirichlet(np.full(vocabulary, 0.1), size=(2, vocabulary)).cumsum(axis=-1)
    chain = random.integers(2, size=count)
    token = random.integers(vocabulary, size=count)
    sequence = [token]
    for _ in range(length):
        chain = np.where(random.uniform(size=count) < 0.05, 1 - chain, chain)
        token = _drawn(random, chains[chain, token])
        sequence.append(token)
    sequences = np.stack(sequence, axis=1).astype("int32")
    return thirds(sequences[:, :-1], sequences[:, 1:])


def text(letters: int, length: int, count: int = 72000, words: int = 600) -> Data:
    """Returns windows of a text of made-up words, and the letter after each of theirs.

    Few words are frequent and many are rare, as in any language: there is always something left to
    learn.

    Args:
        letters: Number of letters, of which 0 is the space.
        length: Letters in a window.
        count: Number of windows. Defaults to 72000.
        words: Number of words. Defaults to 600.

    Returns:
        For each split, int32 `[examples, length]` letters, and the letters after each of them.
    """
    random = np.random.default_rng(24)
    longest = 7
    # Words end in a space; what is behind it is left out.
    size = random.integers(2, longest + 1, size=(words, 1))
    place = np.arange(longest + 1)
    spelling = random.integers(1, letters, size=(words, longest + 1))
    spelling = np.where(place < size, spelling, np.where(place == size, 0, -1))
    # After each of eight sorts of words, other sorts are likely.
    sort = random.integers(8, size=words)
    follows = random.dirichlet(np.full(8, 0.3), size=8)
    frequency = follows[:, sort] / np.arange(1, words + 1)
    frequency = (frequency / frequency.sum(axis=1, keepdims=True)).cumsum(axis=1)
    word = random.integers(words, size=count)
    spelled = []
    for _ in range(length // 3 + 2):
        spelled.append(spelling[word])
        word = _drawn(random, frequency[sort[word]])
    windows = np.concatenate(spelled, axis=1)
    behind = np.argsort(windows < 0, axis=1, kind="stable")
    windows = np.take_along_axis(windows, behind, axis=1)[:, : length + 1].astype("int32")
    return thirds(windows[:, :-1], windows[:, 1:])


def sums(data: Data, sign: int = 1) -> Data:
    """Returns pairs of images side by side, and the last digit of the sum of their labels.

    Args:
        data: For each split, float32 `[examples, height, width]` and int labels from 0 to 9.
        sign: 1 (the default), or -1 for the difference of labels.
    """
    random = np.random.default_rng(25)

    def pairs(images: Array, labels: Array) -> tuple[Array, Array]:
        other = random.permutation(len(labels))
        beside = np.concatenate([images, images[other]], axis=-1)
        return beside, ((labels + sign * labels[other]) % 10).astype("int32")

    return {split: pairs(np.asarray(x), np.asarray(y)) for split, (x, y) in data.items()}


def waves(length: int, count: int = 6000) -> Data:
    """Returns noisy sums of two sines, and their next value.

    Args:
        length: Values in a series.
        count: Number of series. Defaults to 6000.

    Returns:
        For each split, float32 `[examples, length, 1]` and `[examples, 1]`.
    """
    random = np.random.default_rng(16)
    time = np.arange(length + 1)
    frequency = random.uniform(0.1, 1.5, size=(2, count, 1))
    phase = random.uniform(0.0, 2.0 * np.pi, size=(2, count, 1))
    series = np.sin(frequency * time + phase).sum(axis=0)
    series = (series + 0.05 * random.normal(size=series.shape)).astype("float32")
    return thirds(series[:, :-1, None], series[:, -1:])


def responses(length: int, count: int = 12000) -> Data:
    """Returns pushes that a damped pendulum is given, and where it is after them: without noise.

    Args:
        length: Number of pushes.
        count: Number of pendulums. Defaults to 12000.

    Returns:
        For each split, float32 `[examples, length, 1]` and `[examples, 1]`.
    """
    random = np.random.default_rng(26)
    pushes = random.normal(size=(count, length))
    angle = speed = np.zeros(count)
    for push in pushes.T:
        for _ in range(4):
            speed = speed + 0.15 * (2.0 * push - np.sin(angle) - 0.3 * speed)
            angle = angle + 0.15 * speed
    x, y = pushes.astype("float32"), (angle / angle.std()).astype("float32")
    return thirds(x[..., None], y[:, None])


def bags(vocabulary: int, size: int, count: int = 15000, kept: int | None = None) -> Data:
    """Returns bags of words of one topic, and another word of it.

    Args:
        vocabulary: Number of words, rare ones among them.
        size: Words in a bag.
        count: Number of bags. Defaults to 15000.
        kept: How many words are told apart, where rarer ones are all the same one. Defaults to
            all.

    Returns:
        For each split, int32 `[examples, size]` words, and `[examples]` another.
    """
    random = np.random.default_rng(17)
    frequency = 1.0 / np.arange(1, vocabulary + 1)
    topics = random.dirichlet(0.05 * frequency * vocabulary, size=12).cumsum(axis=-1)
    topic = topics[random.integers(12, size=count)][:, None]
    words = _drawn(random, np.broadcast_to(topic, (count, size + 1, vocabulary)))
    last = vocabulary - 1 if kept is None else kept
    words = np.minimum(words, last).astype("int32")
    return thirds(words[:, :-1], words[:, -1])


def ratings(users: int, items: int, count: int = 15000) -> Data:
    """Returns how users rate items: a matrix of low rank, and noise.

    Args:
        users: Number of users.
        items: Number of items.
        count: Number of ratings. Defaults to 15000.

    Returns:
        For each split, int32 `[examples, 2]` a user and an item, which is counted after the users;
        and float32 `[examples, 1]`.
    """
    random = np.random.default_rng(18)
    tastes = random.normal(size=(users + items, 4))
    user, item = random.integers(users, size=count), users + random.integers(items, size=count)
    rating = (tastes[user] * tastes[item]).sum(axis=1) / 2.0 + 0.3 * random.normal(size=count)
    x = np.stack([user, item], axis=1).astype("int32")
    return thirds(x, rating.astype("float32")[:, None])


def _drawn(random: np.random.Generator, cumulated: Array) -> Array:
    """Draws a number from each distribution, whose cumulated probabilities are the last axis."""
    below = cumulated < random.uniform(size=(*cumulated.shape[:-1], 1))
    return np.minimum(below.sum(axis=-1), cumulated.shape[-1] - 1)
