"""Task families: the distributions from which optimizees are drawn."""

from l2l_keras.tasks.base import Task, Weight
from l2l_keras.tasks.keras_task import KerasTask
from l2l_keras.tasks.mixture import Mixture
from l2l_keras.tasks.paper.convnets import cifar_convnet, digits_convnet
from l2l_keras.tasks.paper.images import digits_mlp, image_mlp, mnist_mlp
from l2l_keras.tasks.paper.neural_art import NeuralArt
from l2l_keras.tasks.paper.quadratic import Quadratic
from l2l_keras.tasks.registry import get, names

__all__ = [
    "KerasTask",
    "Mixture",
    "NeuralArt",
    "Quadratic",
    "Task",
    "Weight",
    "cifar_convnet",
    "digits_convnet",
    "digits_mlp",
    "get",
    "image_mlp",
    "mnist_mlp",
    "names",
]
