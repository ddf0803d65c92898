#!/usr/bin/env python3
"""Writes tests/golden/compare_cases.json: inputs and the text that torch.utils.benchmark.Compare makes of them.

Run with Debian 12's python3-torch (torch 1.13): /usr/bin/python3 tools/make_golden_tables.py. The tests need no torch.
"""
import json
import pathlib
import random

import torch
from torch.utils.benchmark import Compare, Measurement
from torch.utils.benchmark.utils.common import TaskSpec

SEED_LABEL = "NVFP4 Blockscaled CUTLASS MOE vs FP8 Tensor Scaled Triton"
SEED_COLUMNS = ["triton_moe", "triton_moe_cuda_graphs", "cutlass_moe_fp4", "cutlass_moe_fp4_cuda_graphs"]


def seed_row(tokens):
    return (f"nvidia/DeepSeek-R1-FP4, num_experts=256, topk=8, per_act_token=False per_out_ch=False, "
            f"MKN=(({tokens}, 2048, 7168))")


def entry(label, sub_label, description, times, env=None, threads=1, number=1):
    return {"label": label, "sub_label": sub_label, "description": description, "env": env, "num_threads": threads,
            "number_per_run": number, "raw_times": [t * number for t in times]}


def torch_text(entries, style):
    compare = Compare([
        Measurement(number_per_run=e["number_per_run"], raw_times=e["raw_times"],
                    task_spec=TaskSpec(stmt="x", setup="pass", label=e["label"], sub_label=e["sub_label"],
                                       description=e["description"], env=e["env"], num_threads=e["num_threads"]))
        for e in entries
    ])
    if style["trim"]:
        compare.trim_significant_figures()
    if style["highlight"]:
        compare.highlight_warnings()
    if style["color"] != "none":
        compare.colorize(rowwise=style["color"] == "rowwise")
    return str(compare)


def style(trim=False, highlight=False, color="none"):
    return {"trim": trim, "highlight": highlight, "color": color}


def seed_entries():
    data = {4: (12.34e-3, 11.91e-3, 9.87e-3, 7.65e-3), 8: (18.1e-3, 17.8e-3, 12.2e-3, 10.4e-3),
            16: (27.9e-3, 27.4e-3, 16.6e-3, 15.1e-3)}
    return [entry(SEED_LABEL, seed_row(tokens), column, [t * 0.999, t, t * 1.001])
            for tokens, times in data.items() for column, t in zip(SEED_COLUMNS, times)]


def named_cases():
    seed = seed_entries()
    noisy = seed + [entry(SEED_LABEL, seed_row(32), "triton_moe", [30e-3, 40e-3, 55e-3, 31e-3, 33e-3])]
    envs = [entry("L", "row1", "a", [1e-6] * 3, env="base"), entry("L", "row1", "a", [1.2e-6] * 3, env="patch"),
            entry("L", "row2", "a", [900e-9] * 3, env="base"), entry("L", "row2", "a", [2e-6] * 3, env="patch"),
            entry("L", "row1", "a", [5e-7] * 3, env="base", threads=4)]
    spread = [entry("spread", "r", c, [t]) for c, t in zip("abcdef", (1e-3, 1.005e-3, 1.05e-3, 1.5e-3, 2.5e-3, 6e-3))]
    cases = [
        ("Seed", style(), seed),
        ("SeedTrimmed", style(trim=True), seed),
        ("SeedHighlightWithoutWarnings", style(highlight=True), seed),
        ("SeedHighlightWithWarningsAndMissingCells", style(highlight=True), noisy),
        ("SeedColumnwise", style(color="columnwise"), seed),
        ("SeedRowwise", style(color="rowwise"), seed),
        ("EnvsAndThreads", style(), envs),
        ("TwoLabels", style(), [entry("L1", "r", "a", [1e-3]), entry("L2", "r", "a", [1.0])]),
        ("MergedReplicates", style(), [entry("L", "r", "a", [1e-3, 2e-3]), entry("L", "r", "a", [0.9e-3], number=10)]),
        ("DigitsAtPowersOfTen", style(), [entry("L", "r10", "a", [10.0e-3]), entry("L", "r100", "a", [100.0e-3]),
                                          entry("L", "r9.96", "a", [9.96e-3])]),
        ("OneUnit", style(), [entry("L", "r", "a", [1.0e-3])]),
        ("JustBelowOneUnit", style(), [entry("L", "r", "a", [0.9999e-3])]),
        ("MissingCellInSubUnitColumn", style(), [entry("L", "r1", "a", [1e-3]), entry("L", "r1", "b", [1.0]),
                                                 entry("L", "r2", "a", [2e-3])]),
        ("EmptyLabel", style(), [entry("", "r", "a", [1e-3])]),
        ("LabelWiderThanTable", style(), [entry("x" * 200, "r", "a", [1e-3])]),
        ("ColorLevelsColumnwise", style(color="columnwise"),
         [entry("spread", f"r{i}", "a", [t]) for i, t in enumerate((1e-3, 1.005e-3, 1.05e-3, 1.5e-3, 2.5e-3, 6e-3))]),
        ("ColorLevelsRowwise", style(color="rowwise"), spread),
    ]
    for exponent in (-12, -9, -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3):
        for mantissa in (1.0, 2.5, 9.94, 9.96, 9.999999):
            cases.append((f"Magnitude{exponent + 12}x{str(mantissa).replace('.', 'p')}", style(),
                          [entry("m", "r", "a", [mantissa * 10.0**exponent])]))
    for width in range(1, 14):
        cases.append((f"ColumnWidth{width}", style(), [entry("w", "row", "c" * width, [12.34e-3]),
                                                       entry("w", "row", "d" * (width + 7), [1.5e-3])]))
    return cases


def random_case(rng):
    labels = [SEED_LABEL if rng.random() < 0.3 else "label" * rng.randint(1, 9) for _ in range(rng.choice((1, 1, 1, 2)))]
    columns = ["c" * rng.randint(1, 30) + str(i) for i in range(rng.randint(1, 5))]
    rows = ["row " * rng.randint(0, 12) + str(i) for i in range(rng.randint(1, 6))]
    envs = rng.choice(([None], [None], ["only"], ["base", "patched"], ["a", "bb", "ccc"]))
    threads = rng.choice(([1], [1], [2], [1, 2, 16]))
    magnitude = rng.uniform(-8, 1)
    entries = []
    for label in dict.fromkeys(labels):
        for row in rows:
            for column in columns:
                for env in envs:
                    for count in threads:
                        if rng.random() < 0.15:
                            continue
                        median = 10.0**(magnitude + rng.uniform(0, 3))
                        noise = rng.choice((0.0, 0.001, 0.02, 0.2, 0.5))
                        times = [median * (1 + noise * rng.uniform(-1, 1)) for _ in range(rng.randint(1, 9))]
                        entries.append(entry(label, row, column, times, env, count, rng.choice((1, 1, 7, 25))))
    # A column without one measurement in a label's table cannot be rendered by the original; each has at least one.
    rng.shuffle(entries)
    return entries


def main():
    cases = [{"name": name, "style": s, "entries": e, "expected": torch_text(e, s)} for name, s, e in named_cases()]
    rng = random.Random(20251217)
    while len(cases) < 400:
        entries = random_case(rng)
        if not entries or len(entries) > 60:
            continue
        s = style(rng.random() < 0.3, rng.random() < 0.5, rng.choice(("none", "none", "columnwise", "rowwise")))
        cases.append({"name": f"Random{len(cases)}", "style": s, "entries": entries, "expected": torch_text(entries, s)})
    path = pathlib.Path(__file__).parent.parent / "tests" / "golden" / "compare_cases.json"
    document = {"made_with": f"torch {torch.__version__}", "cases": cases}
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
