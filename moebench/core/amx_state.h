// Linux's leave to use AMX tiles: their 8 KB of state make a thread's saved registers larger, so a
// process has to ask before its first tile instruction.
#pragma once

namespace moebench {

/// False where the kernel knows no AMX or refuses. Holds for all threads; asking again is harmless.
[[nodiscard]] bool request_amx_tiles();

}  // namespace moebench
