"""CIFAR-100 with its fine labels, read by torchvision."""

from __future__ import annotations

from pathlib import Path

import torch

import cutk

# The fine ones, in the order of the published file `meta`.
CLASSES = tuple(
    """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm
""".split()  # noqa: SIM905  # a hundred words, not a hundred lines
)


class Cifar100(cutk.Dataset):
    """60,000 colour photographs of 32×32 pixels in 100 fine classes, 50,000 of them for training."""

    name = "cifar100"
    reference = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"
    published = cutk.Published(50_000, 10_000, (3, 32, 32), CLASSES)
    model = "wide-resnet"
    recipe = {"steps": 6000}
    suggests = {"interclass-confusion": {"classes": ("maple_tree", "oak_tree")}}

    class Options(cutk.Options):
        """Where the files lie."""

        root: Path = cutk.option(Path("data"), help="folder that holds, or is to hold, cifar-100-python (--data-root)")
        download: bool = cutk.option(False, help="fetch the files if they aren't there (--download)")

    def load(self) -> cutk.Splits:
        """Read both splits; torchvision checks the files' MD5 sums."""
        from torchvision.datasets import CIFAR100  # which takes as long to import as torch itself

        root, download = self.options.root.expanduser(), self.options.download
        with cutk.Splits.reading("CIFAR-100", root, root / "cifar-100-python", download):
            train, test = (
                cutk.Samples(
                    torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
                    torch.tensor(part.targets),
                    tuple(part.classes),
                )
                for part in (CIFAR100(root, train=train, download=download) for train in (True, False))
            )
        return cutk.Splits(train=train, test=test)


@cutk.hookimpl
def cutk_datasets() -> list[type[cutk.Dataset]]:
    """Provide ``cifar100``."""
    return [Cifar100]
