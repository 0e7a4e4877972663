// Names of CUDA's handles for code that passes them on without CUDA's headers.
#pragma once

struct CUstream_st;
struct CUevent_st;

namespace shardmax {

using DeviceStream = CUstream_st*;  // cudaStream_t
using DeviceEvent = CUevent_st*;    // cudaEvent_t

}  // namespace shardmax
