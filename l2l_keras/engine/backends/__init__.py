"""What differs between Keras' backends: where state lives, and how a step is compiled.

`backend` is the module for the active backend. Each module has the same functions:

- `compile_step(step)` returns the one boundary between variables and the pure step: it reads
  variables before and writes them after.
- `kernel(function)` compiles a pure function of state arrays and inputs, which returns an output
  and the next state arrays (none if they stay as they are). Where tensors are mutable, the state is
  updated in place.
- `windowed(step)` compiles a rule's step so that it runs over windows of a long vector.
- `pack(tensors)` and `unpack(packed, shapes)` pass several small inputs to a kernel as few as the
  backend likes.
- `clear(states, condition)` zeroes state arrays if a condition holds.
- `after(tensors)` is a scope whose operations start after given ones.
- `bitcast(tensor, dtype)` reinterprets the bits of a tensor.
- `device(variable)`, `next_to(variable)` and `window_length(device_name)` say where a variable
  lies, how to place another one there, and how many elements to process at a time.
- `replicated()` says whether a distribution strategy runs the step once for each replica, which
  `run_on_replicas` does.
- `sees_losses()` says whether a loss that a trainer passes to `scale_loss` can be recorded there.
- `synchronize(model)` writes a trainer's current values to the model's variables.

State arrays are what a variable's `handle` returns: variables on TensorFlow, tensors elsewhere.
"""

import importlib
from typing import Any

import keras

backend: Any = importlib.import_module(f"{__name__}.{keras.backend.backend()}")
"""The module for the active backend."""
