// The kernels around CUTLASS's GEMMs, and a plain GEMM, for the emulated device.
#include "moebench/backend/cutlass/rows.cu"
#include "tests/cutlass/reference_gemm.cu"
