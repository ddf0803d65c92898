"""Runs fused_moe.py with Triton's interpreter and compares it with NumPy, product by product.

    TRITON_INTERPRET=1 python fused_moe_test.py

Products of e4m3 numbers and of FP16 numbers are exact in FP32, and the cases here are built of small integers
and powers of two, so that every sum is, too: answers must agree bit for bit.
"""

import os
import pathlib
import sys

sys.dont_write_bytecode = True  # the source folder stays as it is
os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "moebench/backend/triton"))

import numpy as np  # noqa: E402
import fused_moe  # noqa: E402


class Memory:
    """An array in the shape of what the interpreter takes for a tensor, in place of PyTorch's."""

    def __init__(self, values, dtype=None):
        self.values = values
        self.dtype = dtype or str(values.dtype)

    def data_ptr(self):
        return self.values.ctypes.data

    def untyped_storage(self):
        return self

    def cpu(self):
        return self

    def new_empty(self, _size, device=None):
        return Memory(self.values, self.dtype)

    def set_(self, storage, *_view):
        self.values = storage.values

    def storage_offset(self):
        return 0

    def size(self):
        return self.values.shape

    def stride(self):
        return self.values.strides

    def copy_(self, other):
        assert other.data_ptr() == self.data_ptr()


def decode_e4m3(codes):
    codes = codes.astype(np.int64)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    magnitude = np.where(exponent == 0, mantissa * 2.0**-9, (8 + mantissa) * 2.0 ** (exponent - 10.0))
    return np.where(codes & 0x80, -magnitude, magnitude)


def split(rows):
    """Of every 64 columns the even ones first, then the odd ones."""
    return rows.reshape(len(rows), -1, 32, 2).swapaxes(2, 3).reshape(rows.shape)


def align(ids, experts, block_m):
    """Pairs sorted by expert, each expert's padded to block_m with the number of pairs."""
    pairs, tiles = [], []
    for expert in range(experts):
        mine = list(np.flatnonzero(ids == expert))
        mine += [len(ids)] * (-len(mine) % block_m)
        pairs += mine
        tiles += [expert] * (len(mine) // block_m)
    return np.array(pairs, np.int32), np.array(tiles, np.int32)


def run(random, *, tokens, experts, topk, columns, depth, block_m, block_n, block_k, group_m=1, even_k=None,
        gemm2=False, weighted=False, per_row=False, per_channel=False, transposed=False, accumulation=2,
        wide_rows=False):
    """One GEMM with random small integers and powers of two; the kernel's answer and NumPy's."""
    pairs = tokens * topk
    ids = np.concatenate([random.permutation(experts)[:topk] for _ in range(tokens)]) if tokens else np.zeros(0, int)
    operand_rows = pairs if gemm2 else tokens
    # Codes of -4 .. 4.
    codes = np.array([0xC8, 0xC4, 0xC0, 0xB8, 0x00, 0x38, 0x40, 0x44, 0x48], np.uint8)
    operand = codes[random.integers(0, 9, (operand_rows, depth))]
    weights = codes[random.integers(0, 9, (experts, columns, depth))]
    scale = lambda *shape: (2.0 ** random.integers(-6, -2, shape)).astype(np.float32)  # noqa: E731
    operand_scale = scale(operand_rows) if per_row else scale(1)
    weight_scale = scale(experts, columns) if per_channel else scale(experts)
    routing_weights = scale(pairs)
    sorted_pairs, tile_experts = align(ids, experts, block_m)
    spare_tiles = 3  # programs beyond the routing's tiles, which must do nothing
    tiles = len(tile_experts) * -(-columns // block_n) + spare_tiles
    output = np.full((pairs + 1, columns), np.float16(-77))  # a row behind the last: a guard

    rows = Memory(split(decode_e4m3(operand)).astype(np.float16)) if wide_rows else Memory(operand, "float8_e4m3fn")
    fused_moe.fused_moe_gemm[(tiles,)](
        rows, Memory(weights, "float8_e4m3fn"), Memory(output), Memory(operand_scale),
        Memory(weight_scale), Memory(routing_weights), Memory(sorted_pairs), Memory(tile_experts),
        Memory(np.array([len(sorted_pairs)], np.int32)), columns, depth, pairs, 1 if gemm2 else topk,
        int(per_row), int(per_channel), group_m, BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
        EVEN_K=depth % block_k == 0 if even_k is None else even_k, MUL_ROUTED_WEIGHT=weighted,
        ACCUMULATION=accumulation, TRANSPOSED=transposed, WIDE_SPLIT=64 if wide_rows else 0)

    expected = np.full_like(output, np.float16(-77))
    for pair in range(pairs):
        row = pair if gemm2 else pair // topk
        sums = decode_e4m3(weights[ids[pair]]) @ decode_e4m3(operand[row])
        alpha = operand_scale[row if per_row else 0] * weight_scale[ids[pair]]
        result = sums.astype(np.float32) * alpha
        expected[pair] = (result * routing_weights[pair] if weighted else result).astype(np.float16)
    return output, expected


SMALL = dict(tokens=5, experts=4, topk=2, columns=48, depth=64, block_m=16, block_n=32, block_k=32)
WIDE = dict(transposed=True, wide_rows=True, depth=192, block_k=64)
CASES = {
    "per_tensor": {},
    "gemm2": dict(gemm2=True),
    "routing_weight": dict(gemm2=True, weighted=True),
    "per_token": dict(per_row=True),
    "per_channel": dict(per_channel=True),
    "per_token_per_channel_gemm2": dict(per_row=True, per_channel=True, gemm2=True),
    "uneven_k": dict(depth=80),
    "uneven_k_shorter_than_a_block": dict(depth=16),
    "masks_on_even_k": dict(even_k=False),
    "transposed": dict(transposed=True),
    "transposed_uneven_k_per_channel": dict(transposed=True, depth=80, per_channel=True, per_row=True),
    "wide_rows": dict(WIDE),
    "wide_rows_gemm2_per_token": dict(WIDE, gemm2=True, per_row=True),
    "wide_rows_many_steps_tall_tiles": dict(WIDE, depth=512, block_k=128, tokens=70, block_m=64),
    "wide_rows_blocks_of_two_splits_per_channel": dict(WIDE, depth=256, block_k=128, per_channel=True),
    "grouped_order": dict(tokens=40, group_m=3, columns=144),
    "group_larger_than_all": dict(tokens=9, group_m=64, columns=144),
    "one_token": dict(tokens=1),
    "no_token": dict(tokens=0),
    "one_expert": dict(experts=1, topk=1, tokens=33),
    "experts_without_tokens": dict(experts=32, tokens=2),
    "tall_tiles": dict(tokens=70, block_m=64, block_n=16),
    "hardware_accumulation": dict(accumulation=0),
    "promoted_accumulation": dict(accumulation=1, depth=80),
}


def main():
    failed = 0
    for number, (name, changes) in enumerate(CASES.items()):
        random = np.random.default_rng(number)
        got, expected = run(random, **{**SMALL, **changes})
        same = got.tobytes() == expected.tobytes()
        failed += not same
        where = "" if same else f": {np.argwhere(got != expected)[:3].tolist()} of {got.shape}"
        print(f"{'ok    ' if same else 'FAILED'} {name} (seed {number}){where}")
    print(f"{len(CASES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
