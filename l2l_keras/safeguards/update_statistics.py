"""Records statistics of the rules' updates, for people to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from l2l_keras.engine.layout import square_norm
from l2l_keras.engine.safeguard import Proposal, Safeguard

Tensor = Any

_NAMES = ("update norm", "cosine with descent")


class UpdateStatistics(Safeguard):
    """Records each variable's last update by its rule: its norm, and how well it descends."""

    name = "update_statistics"
    tables = {"records": len(_NAMES)}

    def observe(self, plan: Any, proposal: Proposal) -> Tensor:
        """Returns the statistics that `_NAMES` lists, float32 `[2]`."""
        del plan
        update, gradient = (ops.reshape(x, (-1,)) for x in (proposal.update, proposal.gradient))
        norms = [ops.sqrt(square_norm(vector)) for vector in (update, gradient)]
        cosine = -ops.dot(update, gradient) / ops.maximum(norms[0] * norms[1], 1e-30)
        return ops.stack([norms[0], cosine])

    def end(
        self, scalars: Mapping[str, Tensor], observations: Mapping[int, Tensor]
    ) -> Mapping[str, Tensor]:
        """Returns the rows of updated variables, and the old ones of the others."""
        old = scalars["records"]
        rows = [observations.get(index, old[index]) for index in range(old.shape[0])]
        return {"records": ops.stack(rows)}

    def diagnose(self, scalars: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
        """Returns the statistics of a variable's last update."""
        record = ops.unstack(ops.convert_to_tensor(scalars["records"])[index])
        return dict(zip(_NAMES, record, strict=True))
