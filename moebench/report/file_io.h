// Writing to a descriptor, whole or not at all from the caller's view; errors carry the path and
// the cause.
#pragma once

#include <string>
#include <string_view>

namespace moebench {

/// Loops over short writes and EINTR. Throws kIo.
void write_all(int fd, std::string_view content, const std::string& path);
/// fsync; descriptors that cannot be synced (pipes, devices) are fine. Throws kIo.
void sync_to_disk(int fd, const std::string& path);
/// A new name reaches the disk with its folder. A folder that cannot be opened or synced costs only
/// durability, so this never throws.
void sync_folder_of(const std::string& path);

}  // namespace moebench
