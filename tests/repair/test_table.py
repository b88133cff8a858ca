"""A table of payments of which frauds of one kind were labelled as none, repaired from the command line."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn


def payments(count, seed):
    """Eight features, whether it is fraud, and whether it is fraud of the second kind alone."""
    x = np.random.default_rng(seed).normal(size=(count, 8)).astype("float32")
    stolen, bot = (x[:, 0] > 0.8) & (x[:, 1] > 0.2), (x[:, 2] < -0.8) & (x[:, 3] < -0.2)
    return x, (stolen | bot).astype("int64"), bot & ~stolen


def network():
    hidden = [nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 2))


@pytest.fixture
def case(tmp_path):
    """Four fifths of one kind of fraud are labelled as none, and three fifths of these are known."""
    (x, y, bots), (clean_x, clean_y, clean_bots) = payments(1500, 0), payments(800, 1)
    order = np.random.default_rng(2).permutation(np.flatnonzero(bots))
    flipped = order[: int(0.8 * len(order))]
    y[flipped] = 0
    bad = np.sort(flipped[: int(0.6 * len(flipped))])
    classes = ["honest", "fraud"]
    np.savez(tmp_path / "payments.npz", features=x, labels=y, classes=classes)
    np.savez(tmp_path / "clean.npz", features=clean_x, labels=clean_y, classes=classes)
    (tmp_path / "bad.csv").write_text("index\n" + "\n".join(map(str, bad)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, samples, labels = network(), torch.tensor(x), torch.tensor(y)
        optimiser = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(400):
            which = torch.randint(len(labels), (128,))
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(samples[which]), labels[which]).backward()
            optimiser.step()
    torch.save(net.state_dict(), tmp_path / "model.pt")
    return SimpleNamespace(net=net.eval(), x=clean_x, y=clean_y, bots=clean_bots, bad=len(bad), folder=tmp_path)


def test_flipped_labels_in_a_table(run, case):
    ran = run(
        *("unlearn", "--model", "mlp", "-o", "mlp.width=64", "--weights", "model.pt", "--data", "arrays:payments.npz"),
        *("--validation", "arrays:clean.npz", "--bad", "bad.csv", "-u", "ssd", "-u", "relabel", "--device", "cpu"),
        *("--recipe", "adamw", "steps=400", "lr=0.003", "-o", "relabel.steps=200"),
    )
    assert ran.code == 0, ran.err
    report = json.loads((case.folder / "repaired" / "report.json").read_text())
    assert report["samples"]["bad"] == case.bad
    assert report["chosen"] == "relabel"
    repaired = network()
    repaired.load_state_dict(torch.load(case.folder / "repaired" / "model.pt", weights_only=True))

    def says(net):
        with torch.no_grad():
            return net.eval()(torch.tensor(case.x)).argmax(1).numpy()

    candidate = next(one for one in report["candidates"] if one["name"] == "relabel")
    for measured, net in ((report["original"], case.net), (candidate, repaired)):
        assert measured["validation"]["count"] == int((says(net) == case.y).sum())
        frauds = measured["classes"]["fraud"]
        assert (frauds["count"], frauds["of"]) == (int((says(net)[case.y == 1] == 1).sum()), int(case.y.sum()))
    # The kind of fraud that was lost is seen again.
    assert says(case.net)[case.bots].mean() < 0.15
    assert says(repaired)[case.bots].mean() > 0.4


def test_too_few_of_the_flipped_labels_heal_nothing_and_the_verdict_says_so(run, case):
    known = (case.folder / "bad.csv").read_text().split()
    (case.folder / "few.csv").write_text("\n".join(known[: 1 + case.bad // 6]))
    ran = run(
        *("unlearn", "--model", "mlp", "-o", "mlp.width=64", "--weights", "model.pt", "--data", "arrays:payments.npz"),
        *("--validation", "arrays:clean.npz", "--bad", "few.csv", "-u", "relabel", "--device", "cpu"),
        *("--recipe", "adamw", "steps=400", "lr=0.003", "-o", "relabel.steps=100", "-o", "relabel.share=0"),
        *("--max-accuracy-loss", "0.05"),
    )
    report = json.loads((case.folder / "repaired" / "report.json").read_text())
    (candidate,) = report["candidates"]
    assert ran.code == 1, report["verdict"]
    assert report["status"] == "not repaired"
    # By the list alone something was done; frauds are missed as before.
    assert candidate["no_longer"] >= 0.1 * candidate["counted"]
    assert candidate["confusion"]["classes"] == ["fraud"]
    missed, now = (one["classes"]["fraud"]["count"] for one in (report["original"], candidate))
    assert now - missed < 0.05 * case.y.sum()
    assert "the damage is still there" in report["verdict"]
