"""Compiles the Triton kernels ahead of time; needs no GPU. Run by the build:

    compile.py --output DIR [--archs 90,100,120] [--accumulation widened] [--ptxas FILE] [--jobs N] [--cache DIR]

Writes DIR/cubins.bin (all machine code, end to end), DIR/manifest.json (what each piece is) and
DIR/embedded.cpp (both as C++ for embedded.h). configs.json says which tiles: those of its tuning table in
both 16-bit types, the any-depth ones, and the candidates that --autotune tries. Where nothing that the
result depends on has changed since the last time, nothing is compiled.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True  # the source folder stays as it is
HERE = pathlib.Path(__file__).resolve().parent
KERNEL = "fused_moe_gemm"
ACCUMULATIONS = {"hardware": 0, "promoted": 1, "widened": 2}
ACTS = {"fp16": "kFp16", "bf16": "kBf16"}
# What one thread block may have, in bytes.
SHARED_LIMIT = {90: 227 << 10, 100: 227 << 10, 103: 227 << 10, 120: 99 << 10, 121: 99 << 10}
# In the order of the kernel's parameters; the driver is given exactly these, then two null pointers
# (Triton's scratch, which these kernels do not use).
POINTERS = {
    "operand": None, "weights": "*fp8e4nv", "output": None, "operand_scale": "*fp32",
    "weight_scale": "*fp32", "routing_weights": "*fp32", "sorted_pairs": "*i32", "tile_experts": "*i32",
    "padded_rows": "*i32"}
INTEGERS = ["columns", "depth", "num_pairs", "rows_per_operand", "operand_scale_stride",
            "weight_scale_stride", "group_m"]
MULTIPLES_OF_16 = ["columns", "depth"]
ALIGNED = [name for name in POINTERS if name != "padded_rows"]

WIDE_SPLIT = 64  # of FP16 rows; see fused_moe.py

TILE = re.compile(r"m(\d+)n(\d+)k(\d+)w(\d+)s(\d+)(t?)(g?)$")


def parse_tile(name):
    """"m16n128k128w4s4": BLOCK_M, BLOCK_N, BLOCK_K, warps, stages; "t" transposed, "g" any depth."""
    match = TILE.match(name)
    if not match:
        sys.exit(f"configs.json: '{name}' is no tile; write m16n128k128w4s4, with t or g behind it")
    m, n, k, warps, stages = map(int, match.groups()[:5])
    return dict(block_m=m, block_n=n, block_k=k, warps=warps, stages=stages,
                transposed=bool(match[6]), any_depth=bool(match[7]))


def has_wide_rows(arch, tile, accumulation):
    """Whether a tile reads its operand rows as FP16: where they are what wgmma reads from shared memory, which then
    needs no widening there. Elsewhere both operands are widened in registers, and e4m3 is less to read."""
    return arch == 90 and tile["transposed"] and not tile["any_depth"] and accumulation == "widened"


def wanted(configs, archs):
    """(arch, act, tile name), each once, in a stable order."""
    jobs = []
    for arch in archs:
        table = [entry for entry in configs["table"] if entry["arch"] == arch]
        used = [entry[gemm] for entry in table for gemm in ("gate_up", "down")]
        used += configs["any_depth"].get(str(arch), [])
        candidates = configs["candidates"].get(str(arch), [])
        for act in ACTS:
            for name in dict.fromkeys(used + (candidates if act == "fp16" else [])):
                jobs.append((arch, act, name))
    return jobs


def compile_one(job):
    arch, act, name, accumulation = job
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    sys.path.insert(0, str(HERE))
    import fused_moe

    tile = parse_tile(name)
    wide_rows = has_wide_rows(arch, tile, accumulation)
    constants = dict(
        BLOCK_M=tile["block_m"], BLOCK_N=tile["block_n"], BLOCK_K=tile["block_k"],
        EVEN_K=not tile["any_depth"], MUL_ROUTED_WEIGHT=False,
        ACCUMULATION=ACCUMULATIONS[accumulation], TRANSPOSED=tile["transposed"],
        WIDE_SPLIT=WIDE_SPLIT if wide_rows else 0)
    signature = {p: t or f"*{act}" for p, t in POINTERS.items()}
    signature["operand"] = "*fp16" if wide_rows else "*fp8e4nv"
    signature.update({p: "i32" for p in INTEGERS})
    signature.update({p: "constexpr" for p in constants})
    parameters = list(signature)
    attributes = {(parameters.index(p),): [["tt.divisibility", 16]] for p in ALIGNED + MULTIPLES_OF_16}
    source = ASTSource(fused_moe.fused_moe_gemm, signature, constexprs=constants, attrs=attributes)
    kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32),
                            options=dict(num_warps=tile["warps"], num_stages=tile["stages"]))
    cubin = kernel.asm["cubin"]
    metadata = kernel.metadata
    if metadata.shared > SHARED_LIMIT[arch]:
        sys.exit(f"{name}: needs {metadata.shared} bytes of shared memory, sm_{arch} has {SHARED_LIMIT[arch]}; "
                 "use fewer stages")
    if metadata.global_scratch_size or metadata.profile_scratch_size or metadata.num_ctas != 1:
        sys.exit(f"{name}: needs scratch memory or a cluster, which the loader does not give")
    # The loader passes what manifest["arguments"] says: a Triton with further hidden ones would read past them.
    entry = re.search(r"\.entry\s+\w+\s*\((.*?)\)", kernel.asm["ptx"], re.DOTALL)[1]
    if entry.count(".param") != len(POINTERS) + len(INTEGERS) + 2:
        sys.exit(f"{name}: {entry.count('.param')} parameters, the loader passes {len(POINTERS) + len(INTEGERS) + 2}")
    mma = sorted(set(re.findall(r"(?:wgmma\.mma_async|tcgen05\.mma|mma\.sync)[\w.:]*", kernel.asm["ptx"])))
    return dict(name=f"{KERNEL}_{name}_{act}_sm{arch}", symbol=metadata.name, arch=arch, act=act, tile=name, **tile,
                wide_rows=wide_rows, shared_bytes=metadata.shared, mma=mma, sha256=hashlib.sha256(cubin).hexdigest()), cubin


def ptxas_version(ptxas):
    if not ptxas:
        return "Triton's own"
    version = subprocess.run([ptxas, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"V([\d.]+)", version)[1]


STAMP = "stamp"
OUTPUTS = ("cubins.bin", "manifest.json", "embedded.cpp")


def stamp_of(options, triton_version):
    digest = hashlib.sha256()
    for name in ("compile.py", "fused_moe.py", "configs.json"):
        digest.update((HERE / name).read_bytes())
    digest.update(repr((triton_version, ptxas_version(options.ptxas), options.archs, options.accumulation,
                        str(options.output.resolve()))).encode())
    return digest.hexdigest()


def is_current(output, stamp):
    """Whether `output` holds what this stamp stands for; marks its files as new if so."""
    stamp_file = output / STAMP
    if not stamp_file.exists() or stamp_file.read_text() != stamp:
        return False
    if not all((output / name).exists() for name in OUTPUTS):
        return False
    for name in OUTPUTS:
        (output / name).touch()
    return True


def write_cpp(path, manifest, configs):
    def text(value):
        return json.dumps(value)

    def flag(value):
        return "true" if value else "false"

    def tile(t):
        return (f"{{{t['block_m']}, {t['block_n']}, {t['block_k']}, {t['warps']}, {t['stages']}, "
                f"{flag(t['transposed'])}, {flag(t['any_depth'])}}}")

    lines = ["// Written by moebench/backend/triton/compile.py.",
             '#include "moebench/backend/triton/embedded.h"', "",
             'asm(".section .rodata\\n.balign 64\\n.global moebench_triton_cubins\\nmoebench_triton_cubins:\\n"',
             f'    ".incbin \\"{path.parent.resolve()}/cubins.bin\\"\\n"',
             '    ".size moebench_triton_cubins, . - moebench_triton_cubins\\n.text\\n");',
             'extern "C" const std::byte moebench_triton_cubins[];', "",
             "namespace moebench::triton {", "namespace {", "",
             f"static_assert(kWideSplit == {WIDE_SPLIT});", "", "const EmbeddedKernel kKernels[] = {"]
    for k in manifest["kernels"]:
        lines.append(f"    {{{text(k['name'])}, {text(k['symbol'])}, {k['arch']}, ActType::{ACTS[k['act']]}, {tile(k)}, "
                     f"{flag(k['wide_rows'])}, {k['shared_bytes']}, {text(k['sha256'])}, {k['offset']}, {k['size']}}},")
    lines += ["};", "", "const TuningEntry kTuning[] = {"]
    for e in configs["table"]:
        lines.append(f"    {{{e['arch']}, {e['experts']}, {e['topk']}, {e['hidden']}, {e['intermediate']}, {e['tokens']}, "
                     f"{tile(parse_tile(e['gate_up']))}, {tile(parse_tile(e['down']))}, {e['gate_up_group']}, {e['down_group']}, "
                     f"{text(e['measured'])}}},")
    lines += ["};", "", "}  // namespace", "", "const EmbeddedSet& embedded_set() {",
              "  static const EmbeddedSet set{", '      "",', f"      {text(manifest['triton'])},",
              f"      {text(manifest['ptxas'])},", f"      {text(manifest['accumulation'])},",
              "      kKernels,", "      kTuning,", f"      {{moebench_triton_cubins, {manifest['bytes']}}}}};",
              "  return set;", "}", "", "}  // namespace moebench::triton", ""]
    path.write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--archs", default="90,100,120")
    parser.add_argument("--accumulation", default="widened", choices=sorted(ACCUMULATIONS))
    parser.add_argument("--ptxas", default="")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=pathlib.Path, default=None, help="Triton's own cache; may be shared")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    # Results must not depend on a cache of somebody else's or on a default that changes.
    os.environ["TRITON_CACHE_DIR"] = str(options.cache or options.output / "cache")
    os.environ["TRITON_DEFAULT_FP_FUSION"] = "0"
    if options.ptxas:
        os.environ["TRITON_PTXAS_PATH"] = os.environ["TRITON_PTXAS_BLACKWELL_PATH"] = options.ptxas
    import triton

    stamp = stamp_of(options, triton.__version__)
    if is_current(options.output, stamp):
        print("Triton kernels: unchanged")
        return
    configs = json.loads((HERE / "configs.json").read_text())
    jobs = wanted(configs, [int(arch) for arch in options.archs.split(",")])
    with concurrent.futures.ProcessPoolExecutor(options.jobs) as pool:
        results = list(pool.map(compile_one, [(*job, options.accumulation) for job in jobs]))
    offset = 0
    kernels = []
    with open(options.output / "cubins.bin", "wb") as out:
        for kernel, cubin in results:
            kernels.append(dict(kernel, offset=offset, size=len(cubin)))
            out.write(cubin)
            offset += len(cubin)
    arguments = [*POINTERS, *INTEGERS, "scratch", "profile_scratch"]
    manifest = dict(triton=triton.__version__, ptxas=ptxas_version(options.ptxas), accumulation=options.accumulation, arguments=arguments,
                    bytes=offset, kernels=kernels)
    (options.output / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    write_cpp(options.output / "embedded.cpp", manifest, configs)
    (options.output / STAMP).write_text(stamp)
    print(f"Triton kernels: {len(kernels)}, {offset} bytes")


if __name__ == "__main__":
    main()
