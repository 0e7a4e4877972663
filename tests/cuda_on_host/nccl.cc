// NCCL: ranks meet in a file of shared memory, whether they are threads or processes.
//
// Non-blocking as shardmax uses it: calls return ncclInProgress, and are on the stream once ncclCommGetAsyncError says
// so. A rank that never comes, or calls something else, leaves the others waiting, as on GPUs.
#include "nccl.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <random>
#include <string>
#include <utility>

#include "tests/cuda_on_host/control.h"
#include "tests/cuda_on_host/device_memory.h"
#include "tests/cuda_on_host/report.h"
#include "tests/cuda_on_host/stream.h"

namespace cuda_on_host {
namespace {

constexpr size_t kChunkBytes = size_t{256} << 10;

// What a rank shows to the others. Round k of all collectives of a communicator moves one chunk of each rank.
struct alignas(64) Slot {
  std::atomic<uint64_t> posted;  // The last round whose chunk is in `data`.
  std::atomic<uint64_t> read;    // The last round that this rank has read of all others.
  std::atomic<uint64_t> call;    // What the rank is calling, to tell a mismatch.
  alignas(64) std::byte data[kChunkBytes];
};

struct Meeting {
  std::atomic<int> attached;
  alignas(64) Slot slots[1];  // One a rank.
};

size_t MeetingBytes(int ranks) {
  return sizeof(Meeting) + static_cast<size_t>(ranks - 1) * sizeof(Slot);
}

// A rank's part of a communicator. Outlives ncclComm_t while work on a stream refers to it.
struct Member {
  int rank = 0;
  int ranks = 0;
  std::string name;
  Meeting* meeting = nullptr;
  uint64_t round = 0;  // Of the collectives that this rank has begun.
  std::atomic<bool> aborted{false};

  ~Member() {
    if (meeting != nullptr) munmap(meeting, MeetingBytes(ranks));
  }
  bool Attach(const std::string& file) {
    name = file;
    const int fd = shm_open(file.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    const auto bytes = MeetingBytes(ranks);
    void* memory = MAP_FAILED;
    if (ftruncate(fd, static_cast<off_t>(bytes)) == 0) {
      memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    close(fd);
    if (memory == MAP_FAILED) return false;
    meeting = static_cast<Meeting*>(memory);  // Zeros are its initial state.
    if (++meeting->attached == ranks) shm_unlink(file.c_str());
    return true;
  }
  bool AllAttached() const { return meeting->attached >= ranks; }
  Slot& slot(int r) const { return meeting->slots[r]; }

  template <typename Predicate>
  bool All(const Predicate& predicate) const {
    for (int r = 0; r < ranks; ++r) {
      if (!predicate(slot(r))) return false;
    }
    return true;
  }
};

enum class Kind { kAllGather, kAllReduce, kReduceScatter, kBroadcast };

// One collective on a stream, run in pieces.
struct Collective {
  std::shared_ptr<Member> member;
  Kind kind;
  const std::byte* send;
  std::byte* receive;
  size_t send_bytes;     // Of this rank; equal on all.
  size_t receive_bytes;  // Of this rank.
  int root = 0;
  size_t offset = 0;  // Of the chunk.
  bool posted = false;

  size_t chunk_bytes() const { return std::min(kChunkBytes, send_bytes - offset); }

  // Whether it has finished.
  bool Step() {
    while (!member->aborted) {
      if (offset >= send_bytes) return true;
      if (!posted && !Post()) return false;
      const uint64_t round = member->round;
      if (!member->All([&](const Slot& s) { return s.posted >= round && s.call == call(); })) return false;
      for (int r = 0; r < member->ranks; ++r) Read(r);
      member->slot(member->rank).read = round;
      posted = false;
      offset += chunk_bytes();
    }
    return true;
  }

 private:
  uint64_t call() const { return (static_cast<uint64_t>(kind) + 1) << 56U | send_bytes; }

  bool Post() {
    const uint64_t before = member->round;
    if (!member->All([&](const Slot& s) { return s.read >= before; })) return false;
    if (offset == 0) {
      CheckDeviceRange(send, send_bytes, "NCCL, sent");
      CheckDeviceRange(receive, receive_bytes, "NCCL, received");
    }
    Slot& mine = member->slot(member->rank);
    std::memcpy(mine.data, send + offset, chunk_bytes());
    mine.call = call();
    mine.posted = ++member->round;
    posted = true;
    return true;
  }

  // Takes the chunk of rank r, in the order of ranks.
  void Read(int r) {
    const Slot& slot = member->slot(r);
    switch (kind) {
      case Kind::kAllGather:
        std::memcpy(receive + static_cast<size_t>(r) * send_bytes + offset, slot.data, chunk_bytes());
        break;
      case Kind::kBroadcast:
        if (r == root) std::memcpy(receive + offset, slot.data, chunk_bytes());
        break;
      case Kind::kAllReduce:
        Add(slot, offset, offset, chunk_bytes(), r == 0);
        break;
      case Kind::kReduceScatter: {
        const size_t first = std::max(offset, static_cast<size_t>(member->rank) * receive_bytes);
        const size_t end = std::min(offset + chunk_bytes(), (static_cast<size_t>(member->rank) + 1) * receive_bytes);
        if (first < end) {
          Add(slot, first, first - static_cast<size_t>(member->rank) * receive_bytes, end - first, r == 0);
        }
        break;
      }
    }
  }

  // receive[to, to + bytes) (+)= the bytes of the sent vector from `from` on, which the slot's chunk has.
  void Add(const Slot& slot, size_t from, size_t to, size_t bytes, bool set) {
    const auto* values = reinterpret_cast<const float*>(slot.data + (from - offset));
    auto* sums = reinterpret_cast<float*>(receive + to);
    for (size_t i = 0; i < bytes / sizeof(float); ++i) sums[i] = set ? values[i] : sums[i] + values[i];
  }
};

struct Faults {
  std::mutex mutex;
  NcclFault fault;
};
Faults& TheFaults() {
  static auto* const faults = new Faults;
  return *faults;
}

}  // namespace

void SetNcclFault(const NcclFault& fault) {
  Faults& faults = TheFaults();
  std::lock_guard<std::mutex> lock(faults.mutex);
  faults.fault = fault;
}

}  // namespace cuda_on_host

using cuda_on_host::Collective;
using cuda_on_host::Kind;
using cuda_on_host::Member;

struct ncclComm {
  std::shared_ptr<Member> member = std::make_shared<Member>();
  ncclResult_t error = ncclSuccess;
  int64_t collectives = 0;
  std::function<void()> pending;  // A call that is not on its stream yet.
  int polls = 0;                  // Since that call.
};

namespace {

size_t BytesOf(size_t count, ncclDataType_t type) {
  return type == ncclFloat32 ? count * 4 : count;
}

ncclResult_t Call(ncclComm_t comm, cudaStream_t stream, Collective collective) {
  if (comm->pending) cuda_on_host::Report("a call of NCCL before the last was under way: poll ncclCommGetAsyncError");
  if (comm->error != ncclSuccess) return comm->error;
  ++comm->collectives;
  cuda_on_host::NcclFault fault;
  {
    std::lock_guard<std::mutex> lock(cuda_on_host::TheFaults().mutex);
    fault = cuda_on_host::TheFaults().fault;
  }
  if (fault.rank == comm->member->rank && fault.collective == comm->collectives) {
    comm->error = ncclRemoteError;
    return ncclInProgress;
  }
  collective.member = comm->member;
  comm->polls = 0;
  comm->pending = [stream, collective] {
    cuda_on_host::Enqueue(stream, [collective]() mutable { return collective.Step(); });
  };
  return ncclInProgress;
}

}  // namespace

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::random_device random;
  const std::string name = "/cuda_on_host-" + std::to_string(random()) + "-" + std::to_string(random());
  std::memset(id->internal, 0, sizeof(id->internal));
  std::memcpy(id->internal, name.data(), name.size());
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) cuda_on_host::Report("the stand-in's NCCL is non-blocking only");
  auto made = std::make_unique<ncclComm>();
  made->member->rank = rank;
  made->member->ranks = ranks;
  if (!made->member->Attach(id.internal)) return ncclSystemError;
  *comm = made.release();
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->error;
  if (comm->error != ncclSuccess) return ncclSuccess;
  if (!comm->member->AllAttached() || (comm->pending && ++comm->polls < 2)) {
    *error = ncclInProgress;
    return ncclSuccess;
  }
  if (comm->pending) std::exchange(comm->pending, nullptr)();
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return comm->error;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  return ncclCommAbort(comm);
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->member->aborted = true;
  shm_unlink(comm->member->name.c_str());  // If not all have come.
  delete comm;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t error) {
  return error == ncclRemoteError ? "remote process exited or there was a network error" : "NCCL error";
}
const char* ncclGetLastError(ncclComm_t /*comm*/) {
  return "";
}

ncclResult_t ncclAllGather(const void* mine, void* all, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  const size_t bytes = BytesOf(count, type);
  return Call(comm, stream,
              {.kind = Kind::kAllGather,
               .send = static_cast<const std::byte*>(mine),
               .receive = static_cast<std::byte*>(all),
               .send_bytes = bytes,
               .receive_bytes = bytes * static_cast<size_t>(comm->member->ranks)});
}

ncclResult_t ncclAllReduce(const void* mine, void* sum, size_t count, ncclDataType_t type, ncclRedOp_t /*operation*/,
                           ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclFloat32) return ncclInvalidArgument;
  return Call(comm, stream,
              {.kind = Kind::kAllReduce,
               .send = static_cast<const std::byte*>(mine),
               .receive = static_cast<std::byte*>(sum),
               .send_bytes = count * 4,
               .receive_bytes = count * 4});
}

ncclResult_t ncclReduceScatter(const void* all, void* mine, size_t count, ncclDataType_t type,
                               ncclRedOp_t /*operation*/, ncclComm_t comm, cudaStream_t stream) {
  if (type != ncclFloat32) return ncclInvalidArgument;
  return Call(comm, stream,
              {.kind = Kind::kReduceScatter,
               .send = static_cast<const std::byte*>(all),
               .receive = static_cast<std::byte*>(mine),
               .send_bytes = count * 4 * static_cast<size_t>(comm->member->ranks),
               .receive_bytes = count * 4});
}

ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  const size_t bytes = BytesOf(count, type);
  return Call(comm, stream,
              {.kind = Kind::kBroadcast,
               .send = static_cast<const std::byte*>(from),
               .receive = static_cast<std::byte*>(to),
               .send_bytes = bytes,
               .receive_bytes = bytes,
               .root = root});
}
