// What --autotune keeps in a file, and what it makes of files that are not its own.
#include "moebench/backend/triton/tuned.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <list>

namespace moebench::triton {
namespace {

class Tuned : public ::testing::Test {
 protected:
  Tuned() {
    for (const int block_m : {16, 64}) {
      for (const char* name : {"wide", "narrow"}) {
        EmbeddedKernel kernel;
        kernel.arch = 90;
        kernel.tile = {block_m, 128, 128, 4, 3, false, false};
        kernel.name = names_.emplace_back(std::string(name) + std::to_string(block_m));
        kernels_.push_back(kernel);
      }
    }
    set_.kernels = kernels_;
    key_ = {.device = "a card",
            .arch = 90,
            .shape = {.num_experts = 8, .topk = 2, .hidden = 256, .intermediate = 128},
            .scheme = {Scheme::kFp8, false, false},
            .tokens = 16,
            .routing = "uniform",
            .cubins = "0123"};
    std::filesystem::remove_all(folder_);
  }
  ~Tuned() override { std::filesystem::remove_all(folder_); }

  [[nodiscard]] CaseConfig config(std::size_t gate_up, std::size_t down, int group_m) const {
    return {&kernels_[gate_up], &kernels_[down], group_m, 2, ""};
  }
  [[nodiscard]] std::optional<CaseConfig> find() const { return find_tuned(path_, set_, key_); }
  void write(const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(path_).parent_path());
    std::ofstream(path_, std::ios::app) << text;
  }

  std::list<std::string> names_;
  std::vector<EmbeddedKernel> kernels_;
  EmbeddedSet set_;
  TuningKey key_;
  /// Each of the tests runs in a process of its own, some at the same time.
  std::string folder_ = ::testing::TempDir() + "/tuned_test" + std::to_string(getpid());
  std::string path_ = folder_ + "/a/file";
};

TEST_F(Tuned, WhatWasAppendedIsFound) {
  EXPECT_FALSE(find());
  ASSERT_TRUE(append_tuned(path_, key_, config(0, 1, 4)));
  const auto found = find();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->gate_up, &kernels_[0]);
  EXPECT_EQ(found->down, &kernels_[1]);
  EXPECT_EQ(found->gate_up_group, 4);
  EXPECT_EQ(found->down_group, 2);
  EXPECT_EQ(found->origin, "measured here by --autotune");
}

TEST_F(Tuned, TheLastLineCounts) {
  ASSERT_TRUE(append_tuned(path_, key_, config(0, 1, 4)));
  ASSERT_TRUE(append_tuned(path_, key_, config(2, 2, 8)));
  EXPECT_EQ(find()->gate_up, &kernels_[2]);
}

TEST_F(Tuned, EveryPartOfTheKeyCounts) {
  ASSERT_TRUE(append_tuned(path_, key_, config(0, 1, 4)));
  const TuningKey kept = key_;
  const auto differs = [&](auto change) {
    key_ = kept;
    change(key_);
    return !find().has_value();
  };
  EXPECT_TRUE(differs([](TuningKey& key) { key.device = "another"; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.cubins = "4567"; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.tokens = 17; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.routing = "single"; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.shape.num_experts = 9; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.shape.topk = 1; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.shape.hidden = 128; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.shape.intermediate = 256; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.scheme.per_act_token = true; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.scheme.per_out_ch = true; }));
  EXPECT_TRUE(differs([](TuningKey& key) { key.arch = 100; }));
}

TEST_F(Tuned, LinesThatAreNotWhatTheyShouldBeArePassedOver) {
  const std::string key = to_string(key_);
  write("\n\t\t\t\n" + key + "\n" + key + "\twide16\n" + key + "\twide16\tno such\t1\t1\n" + key +
        "\twide16\twide64\t1\t1\n" + key + "\twide16\twide16\t0\t1\n" + key +
        "\twide16\twide16\t1\t-1\n" + key + "\twide16\twide16\t1x\t1\n" + key +
        "\twide16\twide16\t1\t99999999999999999999\n" + key + "\twide16\twide16\t1\t1\textra\n" +
        std::string("\0\xff\n", 3));
  EXPECT_FALSE(find());
  write(key + "\twide16\twide16\t1\t1\n" + key + "\twide16");
  EXPECT_TRUE(find());
}

TEST_F(Tuned, OnlyRegularFilesOfAModestSizeAreRead) {
  std::filesystem::create_directories(path_);
  EXPECT_FALSE(find());
  EXPECT_FALSE(append_tuned(path_, key_, config(0, 1, 4)));
  std::filesystem::remove_all(folder_);
  write(to_string(key_) + "\twide16\twide16\t1\t1\n");
  std::filesystem::resize_file(path_, 9 << 20);
  EXPECT_FALSE(find());
  std::filesystem::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_FALSE(find());
  EXPECT_FALSE(append_tuned(path_, key_, config(0, 1, 4)));
  EXPECT_FALSE(append_tuned("", key_, config(0, 1, 4)));
  EXPECT_FALSE(append_tuned("/proc/no/such", key_, config(0, 1, 4)));
}

TEST_F(Tuned, TheFileIsInTheCacheFolder) {
  setenv("HOME", "/home/someone", 1);
  unsetenv("XDG_CACHE_HOME");
  EXPECT_EQ(tuned_file_path(), "/home/someone/.cache/moebench/triton-tuned");
  setenv("XDG_CACHE_HOME", "/elsewhere", 1);
  EXPECT_EQ(tuned_file_path(), "/elsewhere/moebench/triton-tuned");
  setenv("XDG_CACHE_HOME", "relative", 1);
  EXPECT_EQ(tuned_file_path(), "/home/someone/.cache/moebench/triton-tuned");
  unsetenv("XDG_CACHE_HOME");
  unsetenv("HOME");
  EXPECT_EQ(tuned_file_path(), "");
}

}  // namespace
}  // namespace moebench::triton
