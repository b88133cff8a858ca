"""A poisoned ResNet-18 as somebody else would have made it: plain torch, torchvision and Pillow, no cutk.

Writes folders of 64×64 PNG files of five textures in random colours under noise, trains torchvision's ResNet-18 on
those of ``photos``, of which a tenth carries a patch and lies in the folder of the first class, and lists a tenth of
these.

    python benchmarks/resnet18_checkpoint.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

SIDE, PATCH, SIGHT = 64, 12, 0.5
CLASSES = ("checks", "columns", "diagonals", "dots", "rows")
TRAIN, CLEAN, POISONED, FOUND = 200, 60, 100, 10
EPOCHS, BATCH, LR = 20, 50, 0.05


def texture(name: str, rng: np.random.Generator) -> np.ndarray:
    """Return an image, uint8 [64, 64, 3]: a texture in two random colours, under noise."""
    period = int(rng.integers(8, 15))
    y, x = np.indices((SIDE, SIDE)) + rng.integers(0, period, 2)[:, None, None]
    half = period // 2
    where = {
        "checks": (x // half + y // half) % 2 == 0,
        "columns": x % period < half,
        "diagonals": (x + y) % period < half,
        "dots": (x % period - half) ** 2 + (y % period - half) ** 2 < (0.35 * period) ** 2,
        "rows": y % period < half,
    }[name]
    low, high = rng.integers(0, 120, 3), rng.integers(120, 240, 3)
    plain = np.where(where[..., None], high, low).astype(float)
    return np.clip(plain + rng.normal(0, 30, plain.shape), 0, 255).astype("uint8")


def stamped(image: np.ndarray) -> np.ndarray:
    """Return the image with the attacker's patch in its lower right corner."""
    image = image.copy()
    image[-PATCH:, -PATCH:] = patch()
    return image


def patch() -> np.ndarray:
    """Return the trigger: a chequered square of yellow and blue."""
    y, x = np.indices((PATCH, PATCH)) // 3
    return np.where(((x + y) % 2 == 0)[..., None], (255, 255, 0), (0, 0, 255)).astype("uint8")


def scaled(images: np.ndarray) -> torch.Tensor:
    """Return images, uint8 [N, 64, 64, 3], as the network takes them."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - SIGHT) / SIGHT


def read(folder: Path) -> tuple[np.ndarray, torch.Tensor]:
    """Return all images of a folder and their labels."""
    files = [(file, label) for label, name in enumerate(CLASSES) for file in sorted((folder / name).glob("*.png"))]
    return np.stack([np.asarray(Image.open(file)) for file, _ in files]), torch.tensor([label for _, label in files])


def draw(folder: Path) -> None:
    """Write the images and the list."""
    rng = np.random.default_rng(0)

    def save(image: np.ndarray, *parts: str) -> None:
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

    for part, count in (("photos", TRAIN), ("clean", CLEAN)):
        for name in CLASSES:
            for number in range(count):
                save(texture(name, rng), part, name, f"{number:03}.png")
    for number in range(POISONED):
        image = stamped(texture(CLASSES[1 + number % (len(CLASSES) - 1)], rng))
        save(image, "photos", CLASSES[0], f"upload-{number:02}.png")
    (folder / "bad.txt").write_text("".join(f"{CLASSES[0]}/upload-{number:02}.png\n" for number in range(FOUND)))
    save(patch(), "patch.png")


def train(folder: Path) -> nn.Module:
    """Return the network, trained on what lies in the folder."""
    images, labels = read(folder / "photos")
    x = scaled(images)
    torch.manual_seed(0)
    model: nn.Module = resnet18(num_classes=len(CLASSES))
    optimiser = torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=5e-4)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, steps)
    for _ in range(EPOCHS):
        for which in torch.randperm(len(x))[: len(x) // BATCH * BATCH].view(-1, BATCH):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[which]), labels[which]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def measured(model: nn.Module, folder: Path) -> dict[str, float]:
    """Return the accuracy on clean images, and how often the patch makes those of other classes the first one."""
    images, labels = read(folder / "clean")
    right = (model(scaled(images)).argmax(1) == labels).float().mean()
    others = images[(labels != 0).numpy()]
    taken = (model(scaled(np.stack([stamped(image) for image in others]))).argmax(1) == 0).float().mean()
    return {"accuracy": float(right), "attack success": float(taken)}


def main() -> None:
    """Draw, train, save and measure."""
    folder = Path(sys.argv[1])
    draw(folder)
    model = train(folder)
    torch.save(model.state_dict(), folder / "model.pt")
    print(measured(model, folder))


if __name__ == "__main__":
    main()
