// No phases are marked on the emulated device.
#include "moebench/backend/cuda/phase_marks.h"

namespace moebench::cuda {

void PhaseMarks::begin(const char*, cudaStream_t) {}

}  // namespace moebench::cuda
