#pragma once

#include <cstddef>

namespace pyquant {

// Mapped files that may be cut while they are read. A page that is gone raises SIGBUS, which ends
// the process. Watched memory shows zeros there instead, and remembers it.

// Watches [begin, begin + size). Returns a number for the functions below, or -1 if too many are
// watched already.
int watch_mapping(const void* begin, std::size_t size);

// Whether a page was gone.
bool is_mapping_cut(int number);

void forget_mapping(int number);

}  // namespace pyquant
