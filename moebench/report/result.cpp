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

double phases_sum_s(const CaseResult& result) {
  double sum = 0.0;
  for (const auto& [phase, seconds] : result.phases_s) sum += seconds;
  return sum;
}

}  // namespace moebench
