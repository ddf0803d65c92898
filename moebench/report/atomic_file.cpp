// write_file_atomically: the earlier file stays whole until the new one is.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "moebench/core/error.h"
#include "moebench/report/file_io.h"
#include "moebench/report/writers.h"

namespace moebench {

void write_all(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t written = ::write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      fail(ErrorCode::kIo, "{}: writing failed: {}; free space or choose another place",
           printable(path), std::strerror(errno));
    }
    content.remove_prefix(static_cast<std::size_t>(written));
  }
}

void sync_to_disk(int fd, const std::string& path) {
  // Pipes and devices cannot be synced and need not be.
  if (::fsync(fd) != 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP) {
    fail(ErrorCode::kIo, "{}: fsync failed: {}; free space or choose another place",
         printable(path), std::strerror(errno));
  }
}

namespace {

[[nodiscard]] int open_for_writing(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_WRONLY | O_CLOEXEC, 0666);
  if (fd < 0) {
    fail(ErrorCode::kIo, "{}: cannot be opened for writing: {}; choose another place",
         printable(path), std::strerror(errno));
  }
  return fd;
}

/// Devices and pipes (/dev/stdout, /dev/full) have no earlier content to protect and must not be
/// replaced by a file.
bool is_special_file(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode);
}

void write_and_close(int fd, std::string_view content, const std::string& path) {
  try {
    write_all(fd, content, path);
    sync_to_disk(fd, path);
  } catch (...) {
    ::close(fd);
    throw;
  }
  if (::close(fd) != 0) {
    fail(ErrorCode::kIo, "{}: closing failed: {}; free space or choose another place",
         printable(path), std::strerror(errno));
  }
}

}  // namespace

void write_file_atomically(const std::string& path, std::string_view content) {
  if (is_special_file(path)) {
    write_and_close(open_for_writing(path, 0), content, path);
    return;
  }
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  const int fd = open_for_writing(temporary, O_CREAT | O_TRUNC);
  try {
    write_and_close(fd, content, temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      fail(ErrorCode::kIo, "{}: cannot be replaced: {}; choose another place", printable(path),
           std::strerror(errno));
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  // The rename itself reaches the disk with the folder; a folder that cannot be opened for this
  // costs only durability.
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const int folder_fd =
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd >= 0) {
    ::fsync(folder_fd);
    ::close(folder_fd);
  }
}

}  // namespace moebench
