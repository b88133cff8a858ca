"""Repair a poisoned ResNet-18 that other code trained, and measure it by that code.

    python benchmarks/resnet18_repair.py FOLDER [TRY …]

Makes the checkpoint with ``resnet18_checkpoint.py`` if the folder lacks it, runs ``cutk unlearn`` for each of ``TRIES``
or those that are named (SSD as it is published, SSD on softened logits beside relabelling, SEAL, SEAL that ends with a
training from scratch, SCRUB), and sets what the reports say of accuracy and trigger beside what plain torch says of the
weights that were written. Committed figures: results/resnet18/README.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from resnet18_checkpoint import CLASSES, measured
from torchvision.models import resnet18

HERE = Path(__file__).parent
COMMON = (
    *("--model", "torchvision:resnet18", "--weights", "model.pt", "--data", "folder:photos"),
    *("--validation", "folder:clean", "--mean", "0.5", "--std", "0.5", "--bad", "bad.txt"),
    *("--suspect-trigger", "patch.png", "--force"),
)
SHORT = ("--recipe", "steps=100", "batch_size=64", "lr=0.01")
# As the checkpoint was trained, and a third as long.
WHOLE = ("--recipe", "steps=150", "batch_size=50", "lr=0.05", "crop_padding=0", "flip=false")
SSD = ("-u", "ssd", "-o", "ssd.selection_weight=0.1,1,10")
TRIES = {
    "published": (*SSD, "-o", "ssd.temperature=1", *SHORT),
    "softened": (*SSD, "-u", "relabel", "-o", "relabel.steps=60", *SHORT),
    "seal": ("-u", "seal", *WHOLE),
    "retrained": ("-u", "seal:retrain", *WHOLE),
    "scrub": ("-u", "scrub", "-o", "scrub.steps=70", "-o", "scrub.distillation_weight=0.1", *WHOLE),
}


def repaired(folder: Path, name: str) -> None:
    """Run one try, and print its report's figures and those of plain torch."""
    command = (sys.executable, "-m", "cutk", "unlearn", *COMMON, *TRIES[name], "--out", name)
    done = subprocess.run(command, cwd=folder, check=False)
    if done.returncode == 2:
        sys.exit(2)
    report = json.loads((folder / name / "report.json").read_text())
    print(f"\n{name}: {report['verdict']}")
    for one in (report["original"], *report["candidates"]):
        accuracy, attack = (one[what]["count"] / one[what]["of"] for what in ("validation", "attack"))
        print(f"  {one['name']}: accuracy {accuracy:.3f}, attack success {attack:.3f}, by the report")
    if (folder / name / "model.pt").is_file():
        model = resnet18(num_classes=len(CLASSES))
        model.load_state_dict(torch.load(folder / name / "model.pt", weights_only=True))
        figures = ", ".join(f"{what} {value:.3f}" for what, value in measured(model.eval(), folder).items())
        print(f"  {report['chosen']}: {figures}, by plain torch")


def main() -> None:
    """Make what isn't there, and repair it."""
    folder, tries = Path(sys.argv[1]), sys.argv[2:] or list(TRIES)
    if not (folder / "model.pt").is_file():
        subprocess.run((sys.executable, HERE / "resnet18_checkpoint.py", folder), check=True)
    for name in tries:
        repaired(folder, name)


if __name__ == "__main__":
    main()
