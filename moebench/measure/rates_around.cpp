#include "moebench/measure/rates_around.h"

#include <algorithm>
#include <utility>

namespace moebench {
namespace {

void raise(double& best, double rate) { best = std::max(best, rate); }

void lower(double& lowest, double rate) {
  if (rate > 0.0) lowest = lowest > 0.0 ? std::min(lowest, rate) : rate;
}

double ceiling(double best, double lowest, double at_start) {
  if (lowest > 0.0) return best;
  return at_start > 0.0 ? std::max(best, at_start) : 0.0;
}

}  // namespace

RateWatch::RateWatch(Probe probe, const RateReading& first, const Clock& clock)
    : probe_(std::move(probe)), last_(first), clock_(clock), last_s_(clock.now_s()) {}

RateReading RateWatch::now() {
  if (clock_.now_s() - last_s_ >= kReadingLastsS) {
    last_ = probe_();
    last_s_ = clock_.now_s();
  }
  return last_;
}

void RatesAround::add(const RateReading& reading) {
  raise(best.read_bytes_per_s, reading.read_bytes_per_s);
  raise(best.flops_per_s, reading.flops_per_s);
  lower(lowest.read_bytes_per_s, reading.read_bytes_per_s);
  lower(lowest.flops_per_s, reading.flops_per_s);
}

void RatesAround::add_shown(const RateReading& shown) {
  raise(best.read_bytes_per_s, shown.read_bytes_per_s);
  raise(best.flops_per_s, shown.flops_per_s);
}

RateReading RatesAround::ceilings(const MachineRates& at_start) const {
  return {.read_bytes_per_s =
              ceiling(best.read_bytes_per_s, lowest.read_bytes_per_s, at_start.read_bytes_per_s),
          .flops_per_s = ceiling(best.flops_per_s, lowest.flops_per_s, at_start.flops_per_s)};
}

}  // namespace moebench
