# The front of the project. CMake does the work; see CMakePresets.json for the presets behind each target.
#   make bench [ARGS="..."]   install what is missing, build, run the benchmark (ARGS: flags of `moebench run`)
#   make test                 install what is missing, build everything, run the whole test suite
#   make build                only the build/release/moebench that both use
#   make asan tsan clang portable    the test suite under that preset; TEST_ARGS="-R name" selects tests
#   make format format-check tidy edges
#   make install PREFIX=/usr/local   the command and the C++ library (find_package(moebench))
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-checks build bench test asan tsan clang clang-build portable format format-check tidy edges install clean

ARGS ?=
TEST_ARGS ?=
PREFIX ?= /usr/local
JOBS = $$(tools/jobs)
SOURCES = $$(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')

# Stdout belongs to the benchmark (`make -s bench ARGS="--format json" > run.json`); what builds it goes to stderr.
define build_preset
	@cmake --preset $(1) >&2
	@cmake --build --preset $(1) -j $(JOBS) $(if $(2),--target $(2)) >&2
endef

# Tests of one preset. A test may use every CPU; where several run at once, waiting threads must sleep, not spin.
define test_preset
	$(call build_preset,$(1))
	@OMP_WAIT_POLICY=passive ctest --preset $(1) -j $(JOBS) $(TEST_ARGS) </dev/null
endef

help:
	@sed -n '2,/^SHELL/{/^#/s/^# \{0,1\}//p}' Makefile

setup:
	@tools/setup

setup-checks:
	@tools/setup checks

build: setup
	$(call build_preset,release,moebench)

bench: build
	@build/release/moebench run $(ARGS)

test: setup
	$(call test_preset,release)

asan portable: setup
	$(call test_preset,$@)

clang-build: setup-checks
	$(call build_preset,clang)

tsan clang: setup-checks
	$(call test_preset,$@)

format: setup-checks
	@clang-format -i $(SOURCES)

format-check: setup-checks
	@clang-format --dry-run --Werror $(SOURCES)

tidy: setup-checks
	@cmake --preset clang >&2
	@git ls-files 'moebench/*.cpp' | xargs -P $(JOBS) -n 1 clang-tidy --quiet -p build/clang

edges:
	@tools/check_edges

install: setup
	$(call build_preset,release)
	@cmake --install build/release --prefix '$(PREFIX)'

clean:
	rm -rf build
