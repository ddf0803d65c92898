// Kernels on a device on the bench: timed by its clock, checked after it, and what its loss costs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moebench/cli/layer_bench.h"
#include "moebench/cli/memory.h"
#include "moebench/cli/run.h"
#include "tests/cli/fake_device.h"

namespace moebench::cli {
namespace {

using testing::AllOf;
using testing::DoubleNear;
using testing::Each;
using testing::HasSubstr;

constexpr MoeShape kShape{.num_experts = 4, .topk = 2, .hidden = 64, .intermediate = 32};

/// Four columns on one tiny layer: a kernel of the CPU, two of the device, one of those replayed.
class DeviceBenchTest : public testing::Test {
 protected:
  enum Columns : std::size_t { kHost, kDirect, kReplay, kOther };

  DeviceBenchTest() : console_(Verbosity::kQuiet, ColorMode::kNever), progress_(console_, 0.0) {
    options_ = parse_command_line({"--stop", "count:3", "--runs-per-call", "2"}).run;
    host_rates_.read_bytes_per_s = 1e10;
    plan_.columns = {{host_.get(), false, "host_fp4"},
                     {&fp4_, false, "fake_fp4"},
                     {&fp4_, true, "fake_fp4_cuda_graphs"},
                     {&fp8_, false, "fake_fp8"}};
    Layer layer;
    layer.model = &find_model("qwen3-30b-a3b");
    layer.shape = kShape;
    layer.renormalize = true;
    layer.comparisons = 2;
    plan_.layers = {layer};
    plan_.comparisons = {{.layer = 0, .tokens = 5}, {.layer = 0, .tokens = 2}};
  }

  void open_bench() {
    bench_ = std::make_unique<LayerBench>(context_, plan_.layers[0]);
    const WeightFormat formats[] = {WeightFormat::kNvfp4, WeightFormat::kFp8PerTensor};
    bench_->pack(formats);
  }
  std::vector<CaseResult> compare(std::size_t comparison = 0) {
    if (!bench_) open_bench();
    const std::size_t columns[] = {kHost, kDirect, kReplay, kOther};
    std::vector<CaseResult> results;
    errors_.clear();
    for (Outcome& outcome : bench_->compare(plan_.comparisons[comparison], columns)) {
      errors_.push_back(outcome.error);
      results.push_back(std::move(outcome.result));
    }
    return results;
  }

  RunOptions options_;
  Plan plan_;
  StopFlag stop_{false};
  Console console_;
  Progress progress_;
  MachineRates host_rates_;
  FakeDevice device_;
  std::unique_ptr<TamperedKernel> host_ = tampered_cpu_kernel(Scheme::kNvfp4, "host_fp4");
  FakeDeviceKernel fp4_{Scheme::kNvfp4, "fake_fp4", device_};
  FakeDeviceKernel fp8_{Scheme::kFp8, "fake_fp8", device_};
  BenchContext context_{options_,
                        plan_,
                        stop_,
                        progress_,
                        [this](Device* device) -> const MachineRates& {
                          return device != nullptr ? device_.rates : host_rates_;
                        },
                        1};
  std::unique_ptr<LayerBench> bench_;
  std::vector<ErrorCode> errors_;
};

TEST_F(DeviceBenchTest, SamplesAreTheDevicesTimePerCall) {
  const std::vector<CaseResult> results = compare();
  for (const std::size_t column : {kDirect, kReplay, kOther}) {
    EXPECT_EQ(results[column].status, Status::kOk) << results[column].reason;
    EXPECT_EQ(results[column].verdict, "pass");
    EXPECT_EQ(results[column].calls_per_sample, 2);
    EXPECT_EQ(results[column].samples_s.size(), 3U);
    EXPECT_THAT(results[column].samples_s, Each(DoubleNear(0.25e-3, 1e-9)));
  }
  EXPECT_EQ(results[kHost].status, Status::kOk) << results[kHost].reason;
}

TEST_F(DeviceBenchTest, FloorsGoByTheRatesOfTheKernelsOwnPlace) {
  const std::vector<CaseResult> results = compare();
  EXPECT_DOUBLE_EQ(results[kHost].floor_s, static_cast<double>(results[kHost].weight_bytes) / 1e10);
  EXPECT_DOUBLE_EQ(results[kReplay].floor_s,
                   static_cast<double>(results[kReplay].weight_bytes) / 4e12);
  EXPECT_EQ(results[kHost].backend, "cpu");
  EXPECT_EQ(results[kReplay].backend, "fake");
  EXPECT_TRUE(results[kReplay].graph);
}

TEST_F(DeviceBenchTest, ReadingsAroundTheRowAreOfTheHostAlone) {
  context_.host_rates_now = [] { return RateReading{.read_bytes_per_s = 2e10}; };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kHost].floor_bytes_per_s, 2e10);
  EXPECT_EQ(results[kHost].floor_low_bytes_per_s, 2e10);
  for (const std::size_t column : {kDirect, kReplay, kOther}) {
    EXPECT_EQ(results[column].floor_bytes_per_s, 4e12);
    EXPECT_EQ(results[column].floor_low_bytes_per_s, 0.0);
  }
}

TEST_F(DeviceBenchTest, ABeatenFloorOfADeviceIsMeasuredAgain) {
  int measured_again = 0;
  context_.measure_rates_again = [&] {
    ++measured_again;
    device_.rates.read_bytes_per_s = 4e12;
  };
  (void)compare();
  EXPECT_EQ(measured_again, 0);
  device_.rates.read_bytes_per_s = 1.0;
  EXPECT_DOUBLE_EQ(compare()[kOther].floor_bytes_per_s, 4e12);
  EXPECT_EQ(measured_again, 1);
  // What a cache may hold can be faster than memory.
  device_.rates.read_bytes_per_s = 1.0;
  device_.rates.buffer_bytes = std::int64_t{1} << 40;
  EXPECT_EQ(compare()[kOther].floor_bytes_per_s, 1.0);
  EXPECT_EQ(measured_again, 1);
}

TEST_F(DeviceBenchTest, WeightsArePackedOncePerPlaceAndFormat) {
  int host_packs = 0;
  host_->tampering.on_pack = [&host_packs] { ++host_packs; };
  (void)compare(0);
  (void)compare(1);
  EXPECT_EQ(host_packs, 1);
  EXPECT_EQ(fp4_.packs, 1);
  EXPECT_EQ(fp8_.packs, 1);
}

TEST_F(DeviceBenchTest, AReplayThatComputesNothingWhileItIsTimedIsFailed) {
  fp4_.tampering.after_call = [](std::span<std::uint16_t> y, int call, bool graph) {
    if (graph && call > 1) std::fill(y.begin(), y.end(), kPoison);
  };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kDirect].status, Status::kOk) << results[kDirect].reason;
  EXPECT_EQ(results[kReplay].status, Status::kFailed);
  EXPECT_THAT(results[kReplay].reason, HasSubstr("timed call"));
  EXPECT_TRUE(results[kReplay].samples_s.empty());
}

TEST_F(DeviceBenchTest, AReplayWithOtherBitsThanDirectCallsIsFailed) {
  options_.check = parse_check("off");
  fp4_.tampering.after_call = [](std::span<std::uint16_t> y, int, bool graph) {
    if (graph) y[3] ^= 1;
  };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kDirect].status, Status::kOk) << results[kDirect].reason;
  EXPECT_EQ(results[kReplay].status, Status::kFailed);
  EXPECT_THAT(results[kReplay].reason, AllOf(HasSubstr("graph"), HasSubstr("fake_fp4")));
}

TEST_F(DeviceBenchTest, AnAnswerThatChangesWhileItIsTimedIsFailed) {
  fp8_.tampering.after_call = [](std::span<std::uint16_t> y, int call, bool) {
    if (call > 1) y[70] ^= 1;
  };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kOther].status, Status::kFailed);
  EXPECT_THAT(results[kOther].reason, AllOf(HasSubstr("token 1"), HasSubstr("column 6")));
  EXPECT_EQ(results[kDirect].status, Status::kOk);
}

TEST_F(DeviceBenchTest, AWriteOutsideOfTheAnswerOnTheDeviceIsFailed) {
  fp8_.tampering.guard_damage = "wrote 3 elements past the end of the device's answer";
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kOther].status, Status::kFailed);
  EXPECT_THAT(results[kOther].reason, HasSubstr("past the end"));
}

TEST_F(DeviceBenchTest, RotatedCopiesAreComparedEachWithItsOwnAnswer) {
  options_.cache = CacheMode::kRotate;
  for (const CaseResult& result : compare()) {
    EXPECT_EQ(result.status, Status::kOk) << result.reason;
  }
}

TEST_F(DeviceBenchTest, ProfileIsOneCallBesidesTheVerifiedOne) {
  options_.profile = true;
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kReplay].samples_s.size(), 1U);
  EXPECT_EQ(results[kReplay].status, Status::kOk) << results[kReplay].reason;
}

TEST_F(DeviceBenchTest, AThrottledDeviceLabelsItsResultsAndNoOthers) {
  device_.sensors = SensorReport{.readings = 40,
                                 .sm_clock_mhz = 1500,
                                 .sm_clock_low_mhz = 1410,
                                 .memory_clock_mhz = 2619,
                                 .temperature_c = 61,
                                 .power_w = 699,
                                 .throttled = "sw power cap in 3 of 40 readings"};
  const std::vector<CaseResult> results = compare();
  EXPECT_TRUE(results[kDirect].noisy);
  EXPECT_THAT(results[kDirect].noise, HasSubstr("throttled: sw power cap in 3 of 40 readings"));
  EXPECT_EQ(results[kDirect].sm_clock_mhz, 1500);
  EXPECT_EQ(results[kDirect].power_w, 699);
  EXPECT_EQ(results[kHost].sm_clock_mhz, 0);
  EXPECT_EQ(results[kHost].throttled, "");
}

TEST_F(DeviceBenchTest, WithoutSensorsTheirFieldsAreAbsent) {
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kDirect].sm_clock_mhz, 0);
  EXPECT_EQ(results[kDirect].throttled, "");
}

// Class 17 and 24 on a device: it costs its own cases, each with the cause; others go on.
TEST_F(DeviceBenchTest, ADeviceLostWhileItIsCheckedCostsItsRemainingCases) {
  fp4_.tampering.after_call = [this](std::span<std::uint16_t>, int, bool) {
    device_.lose("an illegal address");
  };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kHost].status, Status::kOk) << results[kHost].reason;
  for (const std::size_t column : {kDirect, kReplay, kOther}) {
    EXPECT_EQ(results[column].status, Status::kError);
    EXPECT_THAT(results[column].reason, HasSubstr("an illegal address"));
  }
  EXPECT_EQ(errors_[kDirect], ErrorCode::kInternal);
  EXPECT_EQ(errors_[kOther], ErrorCode::kUnavailable);
  const int prepared = fp8_.prepared;
  const std::vector<CaseResult> next = compare(1);
  EXPECT_EQ(next[kHost].status, Status::kOk) << next[kHost].reason;
  EXPECT_EQ(next[kOther].status, Status::kError);
  EXPECT_THAT(next[kOther].reason, HasSubstr("an illegal address"));
  EXPECT_EQ(fp8_.prepared, prepared) << "a lost device was given work";
}

TEST_F(DeviceBenchTest, ADeviceLostWhileItIsTimedCostsNoTimeOfTheHost) {
  fp8_.tampering.after_call = [this](std::span<std::uint16_t>, int call, bool) {
    if (call == 4) device_.lose("has not finished within 60 s");
  };
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(results[kHost].status, Status::kOk) << results[kHost].reason;
  EXPECT_EQ(results[kHost].samples_s.size(), 3U);
  for (const std::size_t column : {kDirect, kReplay, kOther}) {
    EXPECT_EQ(results[column].status, Status::kError);
    EXPECT_THAT(results[column].reason, HasSubstr("has not finished within 60 s"));
    EXPECT_TRUE(results[column].samples_s.empty());
  }
}

TEST_F(DeviceBenchTest, ADeviceLostBeforePackingIsNotGivenWeights) {
  device_.cause = "gone";
  const std::vector<CaseResult> results = compare();
  EXPECT_EQ(fp4_.packs, 0);
  EXPECT_EQ(results[kDirect].status, Status::kError);
  EXPECT_THAT(results[kDirect].reason, HasSubstr("gone"));
  EXPECT_EQ(results[kHost].status, Status::kOk);
}

/// `run` on a machine of a CPU kernel and a device's.
struct Ended {
  int exit_code;
  std::string out, err;
};

class DeviceRunTest : public testing::Test {
 protected:
  Ended run_small(std::vector<std::string> more = {}) {
    std::vector<std::string> args = {
        "--models", "mixtral-8x7b", "--tp-sizes", "128", "--batch-sizes", "1",        "3",
        "--stop",   "count:2",      "--threads",  "1",   "--backend",     "cpu,cuda", "-v"};
    args.insert(args.end(), more.begin(), more.end());
    const RunOptions options = parse_command_line(args).run;
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    Console console(Verbosity::kNormal, ColorMode::kNever);
    const int exit_code = run(options, args, console, [this](const RunOptions&) {
      Machine machine;
      machine.chosen = {{.name = "cpu", .available = Support::yes(), .detail = "sound"},
                        {.name = "fake", .available = Support::yes(), .detail = "in disguise"}};
      machine.kernels.push_back(tampered_cpu_kernel(Scheme::kFp8, "cpu_moe_fp8"));
      auto fp8 = std::make_unique<FakeDeviceKernel>(Scheme::kFp8, "fake_moe_fp8", device_);
      auto fp4 = std::make_unique<FakeDeviceKernel>(Scheme::kNvfp4, "fake_moe_fp4", device_);
      fp4->tampering = tampering_;
      machine.kernels.push_back(std::move(fp8));
      machine.kernels.push_back(std::move(fp4));
      return machine;
    });
    return {exit_code, testing::internal::GetCapturedStdout(),
            testing::internal::GetCapturedStderr()};
  }

  FakeDevice device_;
  DeviceTampering tampering_;
};

TEST_F(DeviceRunTest, BackendsStandSideBySideInOneRow) {
  const Ended ended = run_small();
  EXPECT_EQ(ended.exit_code, 0) << ended.err;
  const std::string header = ended.out.substr(ended.out.find("cpu_moe_fp8"));
  const std::string line = header.substr(0, header.find('\n'));
  EXPECT_THAT(line, AllOf(HasSubstr("cpu_moe_fp8"), HasSubstr("fake_moe_fp8_cuda_graphs"),
                          HasSubstr("fake_moe_fp4"), HasSubstr("fake_moe_fp4_cuda_graphs")));
  EXPECT_THAT(ended.err, HasSubstr("fake: clocks, temperature and throttling are not recorded"));
  EXPECT_EQ(device_.rates_measured, 1);
}

TEST_F(DeviceRunTest, EnvNamesTheDeviceAndItsRates) {
  const Ended ended = run_small({"-o", "json"});
  EXPECT_THAT(ended.out, AllOf(HasSubstr("\"run.backend\": \"cpu,fake\""),
                               HasSubstr("\"fake.device\": \"a CPU in disguise\""),
                               HasSubstr("\"run.fake.read_bytes_per_s\": \"4e+12\""),
                               HasSubstr("\"run.read_bytes_per_s\"")));
}

TEST_F(DeviceRunTest, ALostDeviceLeavesTheOtherBackendsTable) {
  tampering_.after_call = [this](std::span<std::uint16_t>, int, bool) { device_.lose("broke"); };
  const Ended ended = run_small();
  EXPECT_EQ(ended.exit_code, 1) << ended.err;
  EXPECT_THAT(ended.out, AllOf(HasSubstr("MKN=((3, "), HasSubstr("/m3/nvfp4/fake_moe_fp4")));
  EXPECT_THAT(ended.err, HasSubstr("the device is lost (broke)"));
}

TEST_F(DeviceRunTest, ADeviceWithoutRoomIsRefusedAndTheCpuRuns) {
  device_.room.available = kMemoryReserve + 1000;
  const Ended ended = run_small();
  EXPECT_EQ(ended.exit_code, 5);
  EXPECT_THAT(ended.err, HasSubstr("available on fake"));
  EXPECT_THAT(ended.out, HasSubstr("MKN=((3, "));
}

TEST_F(DeviceRunTest, DryRunShowsEachMemory) {
  const Ended ended = run_small({"--dry-run"});
  EXPECT_EQ(ended.exit_code, 0) << ended.err;
  EXPECT_THAT(ended.out, AllOf(HasSubstr(", on fake:"), HasSubstr("_cuda_graphs")));
}

}  // namespace
}  // namespace moebench::cli
