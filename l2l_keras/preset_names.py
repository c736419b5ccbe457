"""Names by which Keras finds shipped presets: `model.compile("l2l_keras>general-fast")`."""

from __future__ import annotations

from typing import Any

import keras

from l2l_keras import presets
from l2l_keras.optimizer import LearnedOptimizer


def _named(preset: str) -> type[LearnedOptimizer]:
    """Returns what Keras' registry holds for a preset: no weights are read before it is used."""

    class OfPreset(LearnedOptimizer):
        """A `LearnedOptimizer` whose configuration leaves out the rule: it is that of a preset."""

        @classmethod
        def from_config(
            cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
        ) -> LearnedOptimizer:
            """Returns a plain `LearnedOptimizer`, which is saved with its rule."""
            arguments = keras.saving.deserialize_keras_object(config, custom_objects)
            return LearnedOptimizer.from_preset(preset, **arguments)

    return OfPreset


for _preset in presets.names():
    keras.saving.register_keras_serializable("l2l_keras", _preset)(_named(_preset))
