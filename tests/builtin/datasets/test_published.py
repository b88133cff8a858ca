"""What all datasets have in common whose files are published, and must be got."""

from __future__ import annotations

import os
import sys

import pytest
import torch

import cutk
from cutk.run.plan import Plan, over_default
from cutk.run.setup import resolve
from cutk_builtin.datasets.cifar10 import Cifar10
from cutk_builtin.datasets.cifar100 import Cifar100
from cutk_builtin.datasets.mnist import FashionMnist, Mnist
from cutk_builtin.datasets.pcam import PCam
from cutk_builtin.datasets.svhn import Svhn

PUBLISHED = {
    Cifar10: ("CIFAR-10", "cifar-10-batches-py"),
    Cifar100: ("CIFAR-100", "cifar-100-python"),
    Mnist: ("MNIST", "MNIST/raw"),
    FashionMnist: ("Fashion-MNIST", "FashionMNIST/raw"),
    Svhn: ("SVHN", "{train,test}_32x32.mat"),
    PCam: ("PCam", "pcam/camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5"),
}
each = pytest.mark.parametrize("component", PUBLISHED, ids=lambda component: component.name)


@each
def test_missing_files_are_asked_for(component, message, tmp_path):
    title, expected = PUBLISHED[component]
    assert message(component, root=tmp_path) == (
        f"{title} is not in '{tmp_path}', or its files are damaged: expected '{tmp_path / expected}'. "
        "Give its folder with --data-root DIR, or let it be fetched with --download."
    )


@each
def test_a_failed_download_is_explained(component, message, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network here")

    for where in ("cifar.download_and_extract_archive", "mnist.MNIST.download", "svhn.download_url"):
        monkeypatch.setattr(f"torchvision.datasets.{where}", fail)
    monkeypatch.setattr("torchvision.datasets.pcam.download_file_from_google_drive", fail)
    assert message(component, root=tmp_path, download=True) == (
        f"{PUBLISHED[component][0]} cannot be fetched into '{tmp_path}', or its files there are damaged "
        "(OSError: no network here). Get it another way, and give --data-root DIR."
    )


@each
def test_an_unreadable_folder_is_called_so(component, message, open_folder, nobody):
    root = open_folder / "data"
    (root / PUBLISHED[component][1]).mkdir(parents=True)
    os.chmod(root, 0)
    with nobody():
        text = message(component, root=root)
    assert text.startswith(f"{PUBLISHED[component][0]} cannot be read: permission to read '{root}' is denied.")


@each
def test_its_sizes_are_known_without_its_files(component):
    sizes = component().sizes()
    assert f"{sizes.train:,} " in component.__doc__
    assert f"{sizes.train + sizes.test + sizes.validation:,} " in component.__doc__
    assert len(set(sizes.classes)) == len(sizes.classes)
    suggested = component.suggests.get("interclass-confusion", {}).get("classes", ())
    assert set(suggested) <= set(sizes.classes)
    splits = cutk.Splits.blank(sizes)
    assert splits.train.form == "images"
    assert len(splits.train) == sizes.train


@pytest.mark.parametrize(
    ("component", "package"), [(PCam, "h5py"), (Svhn, "scipy")], ids=lambda value: getattr(value, "name", value)
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    component, package, message, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.io", None)
    assert message(component, root=tmp_path).endswith(f"Install it: pip install 'cutk[{component.name}]'")


def test_pcams_sizes_follow_its_crop():
    assert PCam(PCam.Options(crop=48)).sizes().shape == (3, 48, 48)
    assert PCam().sizes() == PCam.published


def test_blank_images_take_little_memory():
    splits = cutk.Splits.blank(PCam().sizes())
    assert splits.train.x.dtype == torch.uint8
    assert splits.train.x.numel() == 262_144 * 3 * 32 * 32


@pytest.fixture
def setup(registry):
    """Settle what a dataset is run with where nothing else is said."""

    def make(component):
        return resolve(
            Plan.parse({**over_default(None, registry), "dataset": component.name, "unlearners": ["none"]}), registry
        )

    return make


@each
def test_what_it_suggests_is_taken(component, setup):
    settled = setup(component)
    assert settled.model.name == component.model
    (recipe,) = settled.recipe.points
    suggested = {**component.recipe, **component.suggests.get("sgd", {})}
    assert {name: getattr(recipe, name) for name in suggested} == suggested


@pytest.mark.parametrize("component", [Mnist, FashionMnist, Svhn], ids=lambda component: component.name)
def test_defaults_that_are_not_the_papers_are_made_for_a_laptop(component, setup):
    """A laptop multiplies about 10¹¹ numbers in a second: a training takes half a minute."""
    settled = setup(component)
    (recipe,) = settled.recipe.points
    sizes = component().sizes()
    network = settled.model.make().build(sizes.shape, len(sizes.classes))
    products = 0

    def count(module, inputs, output):
        nonlocal products
        if isinstance(module, torch.nn.Conv2d):
            products += module.weight.numel() * output.shape[-1] * output.shape[-2]

    for module in network.modules():
        module.register_forward_hook(count)
    network(torch.zeros(2, *sizes.shape))
    backward_too = 3
    assert recipe.steps * recipe.batch_size * backward_too * products < 6e12
