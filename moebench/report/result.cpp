#include "moebench/report/result.h"

namespace moebench {

const char* name_of(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kFailed:
      return "failed";
    case Status::kSkipped:
      return "skipped";
    case Status::kError:
      return "error";
  }
  return "unknown";
}

}  // namespace moebench
