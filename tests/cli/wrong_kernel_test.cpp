// `run` and `check` on a machine whose kernel is wrong or broken: what is printed, and the exit
// code.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moebench/cli/check.h"
#include "moebench/cli/run.h"
#include "tests/cli/tampered_kernel.h"

namespace moebench::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// A machine with an nvfp4 kernel that `tampering` spoils and a sound fp8 kernel.
OpenMachine machine_with(const Tampering& tampering) {
  return [tampering](const RunOptions&) {
    Machine machine;
    machine.chosen = {{.name = "cpu", .available = Support::yes(), .detail = "tampered"}};
    machine.kernels.push_back(tampered_cpu_kernel(Scheme::kFp8, "sound_moe_fp8"));
    auto spoilt = tampered_cpu_kernel(Scheme::kNvfp4, "spoilt_moe_fp4");
    spoilt->tampering = tampering;
    machine.kernels.push_back(std::move(spoilt));
    return machine;
  };
}

struct Ended {
  int exit_code;
  std::string out, err;
};

Ended run_small(const Tampering& tampering, std::vector<std::string> more = {}) {
  std::vector<std::string> args = {
      "--models", "mixtral-8x7b", "--tp-sizes", "128", "--batch-sizes", "1", "3",
      "--stop",   "count:2",      "--threads",  "1"};
  args.insert(args.end(), more.begin(), more.end());
  const RunOptions options = parse_command_line(args).run;
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  Console console(Verbosity::kQuiet, ColorMode::kNever);
  const int exit_code = run(options, args, console, machine_with(tampering));
  return {exit_code, testing::internal::GetCapturedStdout(),
          testing::internal::GetCapturedStderr()};
}

TEST(WrongKernel, SoundKernelsEndWithZero) {
  const Ended ended = run_small({});
  EXPECT_EQ(ended.exit_code, 0) << ended.err;
  EXPECT_EQ(ended.err, "");
}

TEST(WrongKernel, AWrongAnswerEndsWithOneAndLeavesItsCellsEmpty) {
  Tampering tampering;
  tampering.after_run = [](std::span<std::uint16_t> y, int) { y[1] ^= 0x2000; };
  const Ended ended = run_small(tampering);
  EXPECT_EQ(ended.exit_code, 1);
  const std::string table = ended.out.substr(0, ended.out.find("Times are in"));
  EXPECT_THAT(table, AllOf(HasSubstr("sound_moe_fp8"), Not(HasSubstr("spoilt_moe_fp4"))));
  // The facts list it with the reason; stderr has the command that shows it again.
  EXPECT_THAT(ended.out, HasSubstr("spoilt_moe_fp4"));
  EXPECT_THAT(ended.err, AllOf(HasSubstr("/m1/nvfp4/spoilt_moe_fp4"),
                               HasSubstr("moebench run --models mixtral-8x7b")));
}

TEST(WrongKernel, AnErrorEndsWithItsCodeAndTheNextCasesRun) {
  Tampering tampering;
  tampering.on_prepare = [] { fail(ErrorCode::kUnavailable, "device: gone"); };
  const Ended ended = run_small(tampering);
  EXPECT_EQ(ended.exit_code, 4);
  EXPECT_THAT(ended.err, AllOf(HasSubstr("/m1/nvfp4/spoilt_moe_fp4/threads=1: device: gone"),
                               HasSubstr("/m3/nvfp4/spoilt_moe_fp4")));
  EXPECT_THAT(ended.out, HasSubstr("MKN=((3, "));
}

TEST(WrongKernel, MemoryThatRunsOutEndsWithFive) {
  Tampering tampering;
  tampering.on_prepare = [] { throw std::bad_alloc(); };
  EXPECT_EQ(run_small(tampering).exit_code, 5);
}

TEST(WrongKernel, SpeedupsAreOverTheBaseline) {
  const Ended ended = run_small({}, {"--baseline", "nvfp4", "-o", "csv"});
  EXPECT_EQ(ended.exit_code, 0) << ended.err;
  EXPECT_THAT(ended.out, HasSubstr(",spoilt_moe_fp4,"));
}

int check_exit(const Tampering& tampering, std::string& out) {
  const Invocation invocation = parse_command_line(
      {"check", "--schemes", "nvfp4", "--batch-sizes", "2", "--threads", "1", "--isa", "portable"});
  testing::internal::CaptureStdout();
  Console console(Verbosity::kQuiet, ColorMode::kNever);
  const int exit_code = check(invocation, console, machine_with(tampering));
  out = testing::internal::GetCapturedStdout();
  return exit_code;
}

TEST(WrongKernel, CheckPassesSoundOnes) {
  std::string out;
  EXPECT_EQ(check_exit({}, out), 0);
  EXPECT_THAT(out, HasSubstr("32 passed, 0 failed, 8 skipped"));
}

TEST(WrongKernel, CheckFailsAWrongOneWithCoordinatesAndSeed) {
  Tampering tampering;
  tampering.after_run = [](std::span<std::uint16_t> y, int) { y[0] ^= 0x2000; };
  std::string out;
  EXPECT_EQ(check_exit(tampering, out), 1);
  EXPECT_THAT(out, AllOf(HasSubstr("0 passed, 32 failed, 8 skipped"),
                         HasSubstr("FAIL cpu/portable spoilt_moe_fp4"), HasSubstr("seed 0")));
}

TEST(WrongKernel, CheckOfAModelTakesTheSchemesThatABackendHas) {
  const OpenMachine fp8_only = [](const RunOptions&) {
    Machine machine;
    machine.chosen = {{.name = "cpu", .available = Support::yes(), .detail = "one scheme"}};
    machine.kernels.push_back(tampered_cpu_kernel(Scheme::kFp8, "sound_moe_fp8"));
    return machine;
  };
  const auto checked = [&](std::vector<std::string> more, int expected_exit) {
    std::vector<std::string> args = {
        "check",     "--models", "mixtral-8x7b", "--tp-sizes", "128", "--batch-sizes", "1",
        "--threads", "1",        "--isa",        "portable"};
    args.insert(args.end(), more.begin(), more.end());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    Console console(Verbosity::kQuiet, ColorMode::kNever);
    EXPECT_EQ(check(parse_command_line(args), console, fp8_only), expected_exit);
    (void)testing::internal::GetCapturedStderr();
    return testing::internal::GetCapturedStdout();
  };
  EXPECT_THAT(checked({}, 0), HasSubstr("8 passed, 0 failed, 0 skipped"));
  EXPECT_THAT(checked({"--schemes", "nvfp4"}, 4),
              HasSubstr("SKIP cpu/portable: no kernel for the schemes asked for"));
}

TEST(WrongKernel, CheckEndsWithFiveWhereMemoryRunsOut) {
  Tampering tampering;
  tampering.on_pack = [] { fail(ErrorCode::kOutOfMemory, "memory: the system refused 1 byte"); };
  std::string out;
  EXPECT_EQ(check_exit(tampering, out), 5);
  EXPECT_THAT(out, AllOf(HasSubstr("0 passed, 0 failed"), HasSubstr("SKIP cpu/portable spoilt"),
                         HasSubstr("the system refused 1 byte")));
}

TEST(WrongKernel, CheckFailsOneThatDoesNotRepeatItself) {
  Tampering tampering;
  tampering.after_run = [](std::span<std::uint16_t> y, int run) {
    if (run == 2) y[0] ^= 1;
  };
  std::string out;
  EXPECT_EQ(check_exit(tampering, out), 1);
  EXPECT_THAT(out, HasSubstr("a second run gave other bits"));
}

TEST(WrongKernel, CheckFailsOneBitInTheExactMode) {
  Tampering tampering;
  tampering.after_run = [](std::span<std::uint16_t> y, int) {
    y[0] ^= 1;
  };  // the last bit: within many a bound
  std::string out;
  EXPECT_EQ(check_exit(tampering, out), 1);
  EXPECT_THAT(out, Not(HasSubstr("fp16 exact, worst")));
}

}  // namespace
}  // namespace moebench::cli
