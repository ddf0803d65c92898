# What `cmake --install` lays down, and the package files that make find_package(moebench) work.
