// The memory of the devices. Every allocation ends at a page that cannot be touched, and becomes one when it is freed.
#pragma once

#include <cstddef>
#include <string>

namespace cuda_on_host {

// Reports unless [pointer, pointer + bytes) lies in one living allocation of a device.
void CheckDeviceRange(const void* pointer, size_t bytes, const std::string& what);

}  // namespace cuda_on_host
