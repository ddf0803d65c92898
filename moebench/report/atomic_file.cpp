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

/// The file that `path` means: a link is followed, so that the link stays and its target is
/// replaced.
std::string resolved(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_symlink(path, error)) return path;
  const std::filesystem::path target = std::filesystem::weakly_canonical(path, error);
  return error ? path : target.string();
}

/// Where the new content grows: in the target's folder, for rename does not cross file systems;
/// a short name, for the target's own may be as long as names can be.
std::string temporary_beside(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  return (folder / fmt::format(".moebench.{}.tmp", ::getpid())).string();
}

/// Permissions of the earlier file go to the new one.
void keep_mode(int fd, const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) (void)::fchmod(fd, status.st_mode & 07777);
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

void sync_folder_of(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  const int fd = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

void write_file_atomically(const std::string& requested, std::string_view content) {
  const std::string path = resolved(requested);
  if (is_special_file(path)) {
    write_and_close(open_for_writing(path, 0), content, path);
    return;
  }
  const std::string temporary = temporary_beside(path);
  // What a killed run with the same process id left behind. O_EXCL: in a folder that others can
  // write to, nobody's link is followed.
  ::unlink(temporary.c_str());
  const int fd = open_for_writing(temporary, O_CREAT | O_EXCL | O_NOFOLLOW);
  try {
    keep_mode(fd, path);
    write_and_close(fd, content, temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      fail(ErrorCode::kIo, "{}: cannot be replaced: {}; choose another place", printable(path),
           std::strerror(errno));
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_folder_of(path);
}

}  // namespace moebench
