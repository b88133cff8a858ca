from __future__ import annotations

from cutk.report.estimate import cell_costs
from cutk.run.observer import Observer
from cutk.run.store import Store
from cutk.run.study import Study


def test_each_prepared_state_is_counted(setup_of, tmp_path):
    options = {"ssd": {"fisher": ["batch", "per-sample"], "selection_weight": [1, 10], "dampening": 1}}
    study = Study(setup_of(alphas=[0.5], options=options), Store(tmp_path))
    cost, sizes = cell_costs(study)[-1], study.sizes(study.cells[-1])
    # The exact importance takes a pass over S_f more.
    assert (cost.points, cost.work) == (4, 2.0 + sizes.identified / sizes.train)


class Warned(Observer):
    def __init__(self):
        self.warnings = []

    def warning(self, text):
        self.warnings.append(text)


def test_a_cost_can_be_told_before_the_data_are_there(setup_of, tmp_path):
    root = {"cifar10": {"root": str(tmp_path)}}
    plan = {"dataset": "cifar10", "model": "convnet-small", "alphas": [1.0], "unlearners": ["rewod"]}
    setup = setup_of(**plan, options={**root, "convnet-small": {"width": 1}}, recipe={"steps": 475, "batch_size": 100})
    watcher = Warned()
    costs = cell_costs(Study(setup, Store(tmp_path), watcher, blank=True))
    assert [cost.work for cost in costs] == [1.0, 1.0, 1.0]  # 475 · 100 of 47,500, each a pass
    assert not any(cost.stored for cost in costs)
    assert "CIFAR-10 is not in" in watcher.warnings[0]
