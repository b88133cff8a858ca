"""The Python API in one page: benchmark two unlearners on the embedded digits, and look at what came of it.

python examples/quickstart.py
"""

from pathlib import Path

import cutk

report = cutk.bench(
    unlearners=["ssd", "cf"],
    alphas=[0.1, 1.0],
    seeds=1,
    runs="runs",
    progress=lambda done, cells, what: print(f"{done}/{cells} {what}"),
)

for record in report.records:
    if record["selected"]:
        metrics = record["metrics"]
        alpha = "" if record["alpha"] is None else f"at α = {record['alpha']:g}"
        print(
            f"{record['unlearner'] or record['role']:8} {alpha:10} corrected {metrics['corrected_accuracy']:.3f}  "
            f"retain {metrics['retain_accuracy']:.3f}"
        )

for summary in report.summaries:
    print(summary["unlearner"], summary["metrics"])

Path("report.html").write_text(report.html(), encoding="utf-8")
print("See report.html. In a notebook, `report` alone shows its tables and a figure.")
