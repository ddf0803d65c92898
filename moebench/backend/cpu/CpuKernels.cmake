# CPU kernel translation units, one per ISA, each with its own flags. Sets MOEBENCH_CPU_KERNEL_SOURCES.
set(MOEBENCH_CPU_KERNEL_SOURCES)
