"""The grouped GEMM of the FP8 layer as a Triton kernel.

One program computes a tile of BLOCK_M x BLOCK_N outputs of one expert. Its rows are (token, slot)
pairs that moe-align sorted by expert and padded to BLOCK_M, so that a tile never mixes experts:
row i of the tile is pair sorted_pairs[tile * BLOCK_M + i], a number >= num_pairs being padding. The
pair's operand row is pair // rows_per_operand: the token in GEMM1 (rows_per_operand = top-k), the pair
itself in GEMM2 (1). The output row is the pair.

Nothing here is called at run time: compile.py compiles it ahead of time, and the tests run it with
Triton's interpreter.
"""

import os

import triton
import triton.language as tl

# How products are added up along K (ACCUMULATION).
#   HARDWARE: one FP8 accumulation over all of K. On Hopper the tensor core keeps about 14 bits of it.
#   PROMOTED: FP8, but the tensor core's sum is added to an FP32 register sum every BLOCK_K.
#   WIDENED: e4m3 is widened to FP16, which is exact, and FP16 products are summed in FP32.
HARDWARE = tl.constexpr(0)
PROMOTED = tl.constexpr(1)
WIDENED = tl.constexpr(2)

# Triton's interpreter has no inline assembly.
INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
# Two 16-bit pairs of e4m3 codes to the FP16 of their low codes, of their high codes.
WIDEN_LOW = tl.constexpr("""{ .reg .b32 codes; .reg .b16 low, high;
prmt.b32 codes, $1, 0, 0x3120; mov.b32 {low, high}, codes; cvt.rn.f16x2.e4m3x2 $0, low; }""")
WIDEN_HIGH = tl.constexpr("""{ .reg .b32 codes; .reg .b16 low, high;
prmt.b32 codes, $1, 0, 0x3120; mov.b32 {low, high}, codes; cvt.rn.f16x2.e4m3x2 $0, high; }""")


@triton.jit
def row_sums(operand_begin, is_pair, weight_begin, depth, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
             BLOCK_K: tl.constexpr, EVEN_K: tl.constexpr, ACCUMULATION: tl.constexpr, TRANSPOSED: tl.constexpr):
    """Operand rows times weights, [BLOCK_M, BLOCK_N], or TRANSPOSED, [BLOCK_N, BLOCK_M]."""
    k = tl.arange(0, BLOCK_K)
    if TRANSPOSED:
        operand_at = operand_begin[None, :] + k[:, None]
        weight_at = weight_begin[:, None] + k[None, :]
        total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    else:
        operand_at = operand_begin[:, None] + k[None, :]
        weight_at = weight_begin[None, :] + k[:, None]
        total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for step in range(0, tl.cdiv(depth, BLOCK_K)):
        left = depth - step * BLOCK_K
        if TRANSPOSED:
            operand_mask = is_pair[None, :] if EVEN_K else is_pair[None, :] & (k[:, None] < left)
            weight_mask = None if EVEN_K else (k[None, :] < left)
        else:
            operand_mask = is_pair[:, None] if EVEN_K else is_pair[:, None] & (k[None, :] < left)
            weight_mask = None if EVEN_K else (k[:, None] < left)
        a = tl.load(operand_at, mask=operand_mask, other=0.0)
        w = tl.load(weight_at) if EVEN_K else tl.load(weight_at, mask=weight_mask, other=0.0)
        if ACCUMULATION == WIDENED:
            a = a.to(tl.float16)
            w = w.to(tl.float16)
        first = w if TRANSPOSED else a
        second = a if TRANSPOSED else w
        if ACCUMULATION == PROMOTED:
            total = tl.dot(first, second, acc=total, max_num_imprecise_acc=BLOCK_K)
        else:
            total = tl.dot(first, second, acc=total)
        operand_at += BLOCK_K
        weight_at += BLOCK_K
    return total


@triton.jit
def widen_low(pairs):
    if INTERPRETED:
        return pairs.to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float16)
    return tl.inline_asm_elementwise(WIDEN_LOW, "=r,r", [pairs], dtype=tl.float16, is_pure=True, pack=2)


@triton.jit
def widen_high(pairs):
    if INTERPRETED:
        return (pairs >> 8).to(tl.uint8).to(tl.float8e4nv, bitcast=True).to(tl.float16)
    return tl.inline_asm_elementwise(WIDEN_HIGH, "=r,r", [pairs], dtype=tl.float16, is_pure=True, pack=2)


@triton.jit
def wide_row_sums(operand_begin, is_pair, weight_begin, depth, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                  BLOCK_K: tl.constexpr, SPLIT: tl.constexpr):
    """Weights times operand rows, [BLOCK_N, BLOCK_M], for wgmma: weights from registers, rows from shared memory.

    Weights are read as 16-bit pairs of codes, the low codes times the even columns, the high ones times the odd:
    ldmatrix and 16-byte copies move pairs, where Triton would move single codes two bytes and eight bytes at a time.
    """
    HALF: tl.constexpr = BLOCK_K // 2
    k = tl.arange(0, HALF)
    even_at = operand_begin[None, :] + (k // (SPLIT // 2) * SPLIT + k % (SPLIT // 2))[:, None]
    weight_at = weight_begin.to(tl.pointer_type(tl.int16), bitcast=True)[:, None] + k[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_M), dtype=tl.float32)
    for _ in range(0, depth // BLOCK_K):
        even = tl.load(even_at, mask=is_pair[None, :], other=0.0)
        odd = tl.load(even_at + SPLIT // 2, mask=is_pair[None, :], other=0.0)
        pairs = tl.load(weight_at)
        total = tl.dot(widen_low(pairs), even, acc=total)
        total = tl.dot(widen_high(pairs), odd, acc=total)
        if not INTERPRETED:
            # Wait for the sum. Left running, wgmma reads registers that the next step widens weights into, and ptxas
            # then has every single one waited for (C7515).
            total = tl.inline_asm_elementwise("// the sum", "=f,0", [total], dtype=tl.float32, is_pure=False, pack=1)
        even_at += BLOCK_K
        weight_at += HALF
    return total


@triton.jit
def fused_moe_gemm(
    operand,  # e4m3 [operand rows, depth], or FP16, see WIDE_SPLIT
    weights,  # e4m3 [experts, columns, depth]
    output,  # 16-bit [num_pairs, columns]
    operand_scale,  # fp32 [1] or, operand_scale_stride = 1, [operand rows]
    weight_scale,  # fp32 [experts] or, weight_scale_stride = 1, [experts, columns]
    routing_weights,  # fp32 [num_pairs], MUL_ROUTED_WEIGHT only
    sorted_pairs,  # int32 [padded rows]
    tile_experts,  # int32 [padded rows / BLOCK_M]
    padded_rows,  # int32 [1]
    columns,
    depth,
    num_pairs,
    rows_per_operand,
    operand_scale_stride,
    weight_scale_stride,
    group_m,  # row tiles whose column tiles are taken before the next ones'
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,  # depth is a multiple of BLOCK_K
    MUL_ROUTED_WEIGHT: tl.constexpr,
    ACCUMULATION: tl.constexpr,
    TRANSPOSED: tl.constexpr,  # multiply weights by operand rows: few rows then fill a tensor core
    # Not 0: the operand is FP16, of every so many columns the even ones first, then the odd ones.
    WIDE_SPLIT: tl.constexpr,
):
    # Grouped order: programs that run at the same time share operand rows and weight columns in L2.
    program = tl.program_id(0)
    rows = tl.load(padded_rows)
    row_tiles = tl.cdiv(rows, BLOCK_M)
    column_tiles = tl.cdiv(columns, BLOCK_N)
    if program >= row_tiles * column_tiles:
        return  # the grid is made for the most tiles that any routing can have
    group = program // (group_m * column_tiles)
    first_row_tile = group * group_m
    tiles_in_group = tl.minimum(row_tiles - first_row_tile, group_m)
    in_group = program - group * group_m * column_tiles
    row_tile = first_row_tile + in_group % tiles_in_group
    column_tile = in_group // tiles_in_group

    pair = tl.load(sorted_pairs + row_tile * BLOCK_M + tl.arange(0, BLOCK_M))
    is_pair = pair < num_pairs
    operand_row = pair // rows_per_operand
    # An expert's matrix may begin past 2^31 bytes.
    expert = tl.load(tile_experts + row_tile).to(tl.int64)

    column = column_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    # Columns past the end read some column of the same expert; they are not stored.
    weight_row = (column % columns).to(tl.int64)
    operand_begin = operand + operand_row.to(tl.int64) * depth
    weight_begin = weights + expert * columns * depth + weight_row * depth
    if WIDE_SPLIT != 0:
        tl.static_assert(TRANSPOSED and EVEN_K and BLOCK_K % WIDE_SPLIT == 0 and ACCUMULATION == WIDENED)
        total = wide_row_sums(operand_begin, is_pair, weight_begin, depth, BLOCK_M, BLOCK_N, BLOCK_K, WIDE_SPLIT)
    else:
        total = row_sums(operand_begin, is_pair, weight_begin, depth, BLOCK_M, BLOCK_N, BLOCK_K, EVEN_K, ACCUMULATION,
                         TRANSPOSED)
    if TRANSPOSED:
        total = tl.trans(total)

    # alpha = operand scale * weight scale: one rounding, then one for the product with the sum.
    row_scale = tl.load(operand_scale + operand_row * operand_scale_stride, mask=is_pair, other=0.0)
    expert_scales = tl.where(weight_scale_stride != 0, columns, 1).to(tl.int64)
    column_scale = tl.load(weight_scale + expert * expert_scales + weight_row * weight_scale_stride)
    result = total * (row_scale[:, None] * column_scale[None, :])
    if MUL_ROUTED_WEIGHT:
        routing_weight = tl.load(routing_weights + pair, mask=is_pair, other=0.0)
        result = result * routing_weight[:, None]
    output_at = output + pair.to(tl.int64)[:, None] * columns + column[None, :]
    output_mask = is_pair[:, None] & (column[None, :] < columns)
    tl.store(output_at, result.to(output.dtype.element_ty), mask=output_mask)
