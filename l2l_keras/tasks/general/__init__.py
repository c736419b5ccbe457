"""The mixture of tasks on which general presets are meta-trained."""
