"""The grouped GEMM of the FP8 layer as a Triton kernel.

One program computes a tile of BLOCK_M x BLOCK_N outputs of one expert. Its rows are (token, slot)
pairs that moe-align sorted by expert and padded to BLOCK_M, so that a tile never mixes experts:
row i of the tile is pair sorted_pairs[tile * BLOCK_M + i], a number >= num_pairs being padding. The
pair's operand row is pair // rows_per_operand: the token in GEMM1 (rows_per_operand = top-k), the pair
itself in GEMM2 (1). The output row is the pair.

Nothing here is called at run time: compile.py compiles it ahead of time, and the tests run it with
Triton's interpreter.
"""

import triton
import triton.language as tl

# How products are added up along K (ACCUMULATION).
#   HARDWARE: one FP8 accumulation over all of K. On Hopper the tensor core keeps about 14 bits of it.
#   PROMOTED: FP8, but the tensor core's sum is added to an FP32 register sum every BLOCK_K.
#   WIDENED: e4m3 is widened to FP16, which is exact, and FP16 products are summed in FP32.
HARDWARE = tl.constexpr(0)
PROMOTED = tl.constexpr(1)
WIDENED = tl.constexpr(2)


@triton.jit
def fused_moe_gemm(
    operand,  # e4m3 [operand rows, depth], or, WIDENED only, FP16: the same numbers
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
    k = tl.arange(0, BLOCK_K)
    operand_begin = operand + operand_row.to(tl.int64) * depth
    weight_begin = weights + expert * columns * depth + weight_row * depth
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
            a = a.to(tl.float16)  # nothing where the rows are FP16 already
            w = w.to(tl.float16)
        first = w if TRANSPOSED else a
        second = a if TRANSPOSED else w
        if ACCUMULATION == PROMOTED:
            total = tl.dot(first, second, acc=total, max_num_imprecise_acc=BLOCK_K)
        else:
            total = tl.dot(first, second, acc=total)
        operand_at += BLOCK_K
        weight_at += BLOCK_K
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
