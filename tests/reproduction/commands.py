"""Stands for the processes of stages, in tests of what is run when."""

from pathlib import Path

from l2l_keras import presets
from l2l_keras.rules import CoordinatewiseLSTM


class Commands:
    """Writes what the commands would, and keeps their command lines.

    Args:
        meanwhile: Called without arguments when a command is half way.

    Attributes:
        begun: The command lines.
    """

    def __init__(self, meanwhile=lambda: None):
        self.meanwhile = meanwhile
        self.begun = []

    def __call__(self, command, arguments, write, keep_open):
        """Stands for `Children.run`."""
        assert keep_open  # The lock of the folder.
        self.begun.append([command, *arguments])
        (place,) = (a.partition("=")[2] for a in arguments if a.startswith("--output_dir="))
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        write("at work")
        if command == "l2l-meta-train":
            (folder / "settings.json").write_text("{}")
            self.meanwhile()
            rule = CoordinatewiseLSTM(units=(2,), seed=0)
            card = {"wall_seconds": 7, "run": len(self.begun)}
            presets.save_preset(rule, folder / "preset", card)
        else:
            (folder / "curves.csv").write_text("")
            self.meanwhile()
            (folder / "results.json").write_text("{}")
