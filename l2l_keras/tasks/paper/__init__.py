"""The task families of the paper: quadratics, MNIST and CIFAR-10 networks, neural art."""
