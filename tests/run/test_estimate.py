from __future__ import annotations

from cutk.run.estimate import cell_costs
from cutk.run.store import Store
from cutk.run.study import Study


def test_each_prepared_state_is_counted(setup_of, tmp_path):
    options = {"ssd": {"fisher": ["batch", "per-sample"], "selection_weight": [1, 10], "dampening": 1}}
    cost = cell_costs(Study(setup_of(alphas=[0.5], options=options), Store(tmp_path)))[-1]
    assert (cost.points, cost.work) == (4, 2.0)
