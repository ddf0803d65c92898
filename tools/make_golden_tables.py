#!/usr/bin/env python3
"""Writes tests/golden/compare_cases.json: measurements, and the text that torch.utils.benchmark.Compare makes of them.

Made with torch 1.13.0a0, Debian 12's python3-torch, on a CPU with AVX2: /usr/bin/python3 tools/make_golden_tables.py.
The tests read the file only and need no torch. An entry is
[label, sub_label, description, env, num_threads, number_per_run, raw_times]; doubles are written so that they round-trip.
"""
import json
import pathlib
import random
import struct

import torch
from torch.utils.benchmark import Compare, Measurement
from torch.utils.benchmark.utils.common import TaskSpec

SEED_LABEL = "NVFP4 Blockscaled CUTLASS MOE vs FP8 Tensor Scaled Triton"
SEED_COLUMNS = ["triton_moe", "triton_moe_cuda_graphs", "cutlass_moe_fp4", "cutlass_moe_fp4_cuda_graphs"]
RANDOM_SEED = 20251217
RANDOM_CASES = 300
LARGEST_RANDOM_CASE = 24  # entries


def seed_row(tokens):
    return (f"nvidia/DeepSeek-R1-FP4, num_experts=256, topk=8, per_act_token=False per_out_ch=False, "
            f"MKN=(({tokens}, 2048, 7168))")


def entry(label, sub_label, description, times, env=None, threads=1, number=1):
    return [label, sub_label, description, env, threads, number, [t * number for t in times]]


def style(trim=False, highlight=False, color="none"):
    return {"trim": trim, "highlight": highlight, "color": color}


def torch_text(entries, wanted):
    compare = Compare([
        Measurement(number_per_run=number, raw_times=times,
                    task_spec=TaskSpec(stmt="", setup="pass", label=label, sub_label=sub_label,
                                       description=description, env=env, num_threads=threads))
        for label, sub_label, description, env, threads, number, times in entries
    ])
    if wanted["trim"]:
        compare.trim_significant_figures()
    if wanted["highlight"]:
        compare.highlight_warnings()
    if wanted["color"] != "none":
        compare.colorize(rowwise=wanted["color"] == "rowwise")
    return str(compare)


def seed_entries():
    data = {4: (12.34e-3, 11.91e-3, 9.87e-3, 7.65e-3), 8: (18.1e-3, 17.8e-3, 12.2e-3, 10.4e-3),
            16: (27.9e-3, 27.4e-3, 16.6e-3, 15.1e-3)}
    return [entry(SEED_LABEL, seed_row(tokens), column, [t * 0.999, t, t * 1.001])
            for tokens, times in data.items() for column, t in zip(SEED_COLUMNS, times)]


def recorded_cases():
    """Those of torch_compare_1.13.txt."""
    seed = seed_entries()
    noisy = seed + [entry(SEED_LABEL, seed_row(32), "triton_moe", [30e-3, 40e-3, 55e-3, 31e-3, 33e-3])]
    envs = [entry("L", "row1", "a", [1e-6] * 3, env="base"), entry("L", "row1", "a", [1.2e-6] * 3, env="patch"),
            entry("L", "row2", "a", [900e-9] * 3, env="base"), entry("L", "row2", "a", [2e-6] * 3, env="patch"),
            entry("L", "row1", "a", [5e-7] * 3, env="base", threads=4)]
    return [
        ("Seed", style(), seed),
        ("SeedTrimmed", style(trim=True), seed),
        ("SeedHighlightWithoutWarnings", style(highlight=True), seed),
        ("SeedHighlightWithWarningsAndMissingCells", style(highlight=True), noisy),
        ("SeedColumnwise", style(color="columnwise"), seed),
        ("SeedRowwise", style(color="rowwise"), seed),
        ("EnvsAndThreads", style(), envs),
        ("TwoLabels", style(), [entry("L1", "r", "a", [1e-3]), entry("L2", "r", "a", [1.0])]),
        ("MergedReplicates", style(), [entry("L", "r", "a", [1e-3, 2e-3]), entry("L", "r", "a", [9e-3], number=10)]),
        ("DigitsAtPowersOfTen", style(), [entry("L", "r10", "a", [10.0e-3]), entry("L", "r100", "a", [100.0e-3]),
                                          entry("L", "r9.96", "a", [9.96e-3])]),
        ("OneUnit", style(), [entry("L", "r", "a", [1.0e-3])]),
        ("JustBelowOneUnit", style(), [entry("L", "r", "a", [0.9999e-3])]),
    ]


def layout_cases():
    wide_and_narrow = [entry("L", "r1", "a", [1e-3]), entry("L", "r1", "b", [1.0]), entry("L", "r2", "a", [2e-3])]
    threads = [entry("L", row, "a", [(i + 1) * 1e-4], env=env, threads=t)
               for i, (row, env, t) in enumerate((r, e, t) for t in (16, 1, 128) for e in ("b", "a", "") for r in "xy")]
    staircase = [entry("L", f"r{i}", f"c{j}", [10.0**-(i + 1) * (j + 1)]) for i in range(5) for j in range(5) if j <= i]
    replicates = [entry("L", "r", "a", [1e-3 * (1 + 0.3 * k)] * (k + 1), number=n)
                  for k, n in enumerate((1, 7, 25, 1000))]
    yield "MissingCellInSubUnitColumn", style(), wide_and_narrow
    yield "MissingCellTrimmed", style(trim=True), wide_and_narrow
    yield "MissingCellsColoredRowwise", style(color="rowwise"), staircase
    yield "MissingCellsColoredColumnwise", style(color="columnwise"), staircase
    yield "Staircase", style(), staircase
    yield "ThreadsAndEnvsUnsorted", style(), threads
    yield "ThreadsAndEnvsColoredPerThreadCount", style(color="columnwise"), threads
    yield "OneEnvIsNotShown", style(), [entry("L", "r", "a", [1e-3], env="only")]
    yield "ReplicatesOfOtherRunCounts", style(highlight=True), replicates
    yield "ReplicatesOfOtherRunCountsTrimmed", style(trim=True), replicates
    yield "RowsKeepTheirFirstOrder", style(), [entry("L", r, "a", [1e-3]) for r in ("z", "a", "m", "a", "z")]
    yield "NoLabel", style(), [entry(None, "r", "a", [1e-3])]
    yield "NoSubLabel", style(), [entry("L", None, "a", [1e-3])]
    yield "EmptyLabelAndSubLabel", style(), [entry("", "", "", [1e-3])]
    yield "LabelWiderThanTable", style(), [entry("x" * 200, "r", "a", [1e-3])]
    yield "LabelWiderThanTableByOne", style(), [entry("x" * 13, "r", "a", [1e-3])]
    yield "LongSubLabel", style(), [entry("L", "s" * 300, "a", [1e-3]), entry("L", "s", "a", [1e-3])]
    yield "InterleavedLabels", style(), [entry(f"L{i % 3}", f"r{i}", "a", [1e-3 * 10**(i % 3)]) for i in range(9)]
    for width in range(1, 14):
        yield f"ColumnWidth{width}", style(), [entry("w", "row", "c" * width, [12.34e-3]),
                                               entry("w", "row", "d" * (width + 7), [1.5e-3])]
        yield f"LabelWidth{width}", style(), [entry("w" * width, "row", "column", [12.34e-3])]


def number_cases():
    spread = (1e-3, 1.005e-3, 1.01e-3, 1.05e-3, 1.1e-3, 1.5e-3, 2e-3, 2.5e-3, 5e-3, 6e-3)
    yield "ColorLevelsColumnwise", style(color="columnwise"), [entry("s", f"r{i}", "a", [t]) for i, t in enumerate(spread)]
    yield "ColorLevelsRowwise", style(color="rowwise"), [entry("s", "r", f"c{i}", [t]) for i, t in enumerate(spread)]
    yield "ColorLevelsWithin100ns", style(color="rowwise"), [entry("s", "r", f"c{i}", [1e-8 * (i + 1)]) for i in range(12)]
    for exponent in range(-15, 13):
        cells = [entry("m", f"r{m}", "a", [m * 10.0**exponent]) for m in (1.0, 2.5, 9.94, 9.96, 9.999999)]
        yield f"Magnitude{exponent + 15}", style(), cells
        yield f"Magnitude{exponent + 15}Trimmed", style(trim=True), cells
        for i, cell in enumerate(cells):
            yield f"Magnitude{exponent + 15}Cell{i}", style(), [cell]
    yield "MixedMagnitudes", style(), [entry("m", f"r{e + 9}", "a", [3.3 * 10.0**e]) for e in range(-9, 7)]
    yield "MixedMagnitudesTrimmed", style(trim=True), [entry("m", f"r{e + 9}", "a", [3.3 * 10.0**e]) for e in range(-9, 7)]
    ties = (1.25, 1.35, 1.75, 2.5, 10.25, 10.75, 99.95, 999.95)
    yield "TiesRoundToEven", style(), [entry("t", f"r{t}", "a", [t]) for t in ties]
    yield "TiesRoundToEvenTrimmed", style(trim=True), [entry("t", f"r{t}", "a", [t]) for t in ties]
    # Beside powers of ten the rounding of the float32 logarithm decides about digits and unit.
    for power in range(-12, 10):
        bits = struct.unpack("<I", struct.pack("<f", 10.0**power))[0]
        near = [struct.unpack("<f", struct.pack("<I", bits + step))[0] for step in range(-9, 10)]
        yield f"BesidePowerOfTen{power + 12}", style(), [entry("p", f"r{i}", "a", [t]) for i, t in enumerate(near)]
        yield f"BesidePowerOfTen{power + 12}Below", style(), [entry("p", "r", "a", [near[8]])]
        yield f"BesidePowerOfTen{power + 12}Above", style(), [entry("p", "r", "a", [near[10]])]
    for i, value in enumerate((100000.055, 999999.438, 99999944.0, 999.999634, 999998848.0, 1.00000057e-06, 0.00100000028)):
        yield f"LogarithmRoundsAcross{i}", style(), [entry("p", "r", "a", [value])]
    for i, quarter in enumerate((0.0999, 0.05, 0.0625, 0.125, 0.135, 0.145, 0.25, 0.5, 0.9, 3.0)):
        times = [1e-3 * (1 - min(quarter, 0.9)), 1e-3, 1e-3 * (1 + quarter)]
        yield f"Variance{i}", style(highlight=True), [entry("v", "r", "a", times), entry("v", "r2", "a", [1e-3])]
        yield f"Variance{i}Trimmed", style(trim=True, highlight=True), [entry("v", "r", "a", times)]
    yield "VarianceExactlyTenPercent", style(highlight=True), [entry("v", "r", "a", [9.0, 10.0, 11.0])]
    yield "VarianceInOneColumnOfTwo", style(highlight=True), [entry("v", "r", "a", [1.0, 2.0, 3.0]), entry("v", "r", "b", [1.0])]


def random_case(rng):
    labels = [SEED_LABEL if rng.random() < 0.2 else "label" * rng.randint(1, 9) for _ in range(rng.choice((1, 1, 1, 2)))]
    columns = ["c" * rng.randint(1, 30) + str(i) for i in range(rng.randint(1, 5))]
    rows = ["row " * rng.randint(0, 12) + str(i) for i in range(rng.randint(1, 6))]
    envs = rng.choice(([None], [None], ["only"], ["base", "patched"], ["a", "bb", "ccc"]))
    threads = rng.choice(([1], [1], [2], [1, 2, 16]))
    magnitude = rng.uniform(-8, 1)
    most_samples = rng.choice((1, 3, 9, 9, 40))
    entries = []
    for label in dict.fromkeys(labels):
        for row in rows:
            for column in columns:
                for env in envs:
                    for count in threads:
                        for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2))):
                            median = 10.0**(magnitude + rng.uniform(0, 3))
                            noise = rng.choice((0.0, 0.001, 0.02, 0.2, 0.5))
                            times = [median * (1 + noise * rng.uniform(-1, 1)) for _ in range(rng.randint(1, most_samples))]
                            entries.append(entry(label, row, column, times, env, count, rng.choice((1, 1, 7, 25))))
    rng.shuffle(entries)
    return entries[:LARGEST_RANDOM_CASE]


def random_cases():
    rng = random.Random(RANDOM_SEED)
    made = 0
    while made < RANDOM_CASES:
        entries = random_case(rng)
        if not entries:
            continue
        made += 1
        yield (f"Random{made}", style(rng.random() < 0.3, rng.random() < 0.5, rng.choice(("none", "none", "columnwise", "rowwise"))),
               entries)


def main():
    cases = [*recorded_cases(), *layout_cases(), *number_cases(), *random_cases()]
    lines = [json.dumps({"name": name, "style": wanted, "entries": entries, "expected": torch_text(entries, wanted)},
                        separators=(",", ":")) for name, wanted, entries in cases]
    path = pathlib.Path(__file__).parent.parent / "tests" / "golden" / "compare_cases.json"
    made_with = json.dumps(f"torch {torch.__version__}, torch.utils.benchmark.Compare; tools/make_golden_tables.py")
    path.write_text(f'{{"made_with":{made_with},"cases":[\n' + ",\n".join(lines) + "\n]}\n")


if __name__ == "__main__":
    main()
