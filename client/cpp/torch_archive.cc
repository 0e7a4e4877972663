// A file of torch.save: a zip archive, nothing in it compressed, with a pickle that describes the tensors and a file of
// values for each.
#include <array>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "client/cpp/weight_encoder.h"
#include "worker/base/status.h"

namespace shardmax {
namespace {

static_assert(std::endian::native == std::endian::little);

// torch maps values that begin at a multiple of this.
constexpr uint64_t kAlignment = 64;
constexpr uint32_t kIn64Bits = 0xffffffff;
constexpr uint16_t kVersionOfZip64 = 45;
// The checksum of an entry comes behind it.
constexpr uint16_t kChecksumFollows = 1 << 3;
constexpr uint16_t kFirstOfJanuary1980 = (1 << 5) | 1;

std::string Join(std::initializer_list<std::string_view> parts) {
  std::string all;
  for (const std::string_view part : parts) all += part;
  return all;
}

template <typename Number>
std::string Bytes(Number number) {
  return {reinterpret_cast<const char*>(&number), sizeof(number)};
}

template <typename... Numbers>
std::string Pack(Numbers... numbers) {
  return Join({Bytes(numbers)...});
}

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  constexpr uint32_t kPolynomial = 0xedb88320;
  std::array<uint32_t, 256> table = {};
  for (uint32_t byte = 0; byte < table.size(); ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? kPolynomial : 0);
    table[byte] = value;
  }
  return table;
}

// The checksum of zip, continued.
uint32_t Crc32(uint32_t crc, std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  crc = ~crc;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 0xff] ^ (crc >> 8);
  return ~crc;
}

// Opcodes of pickle, protocol 2.
std::string PickledText(const std::string& text) {
  return Join({"X", Bytes(static_cast<uint32_t>(text.size())), text});
}

std::string PickledNumber(int64_t number) {
  return Join({"\x8a\x08", Bytes(number)});
}

std::string PickledTuple(const std::string& items) {
  return Join({"(", items, "t"});
}

// {"weight": a float32 tensor [C, D] whose values are in data/0}
std::string PickledStateDict(int64_t num_classes, int64_t dim) {
  const std::string empty_dict = "ccollections\nOrderedDict\n)R";
  const std::string storage = PickledTuple(Join({PickledText("storage"), "ctorch\nFloatStorage\n", PickledText("0"),
                                                 PickledText("cpu"), PickledNumber(num_classes * dim)}));
  const std::string shape = PickledTuple(Join({PickledNumber(num_classes), PickledNumber(dim)}));
  const std::string stride = PickledTuple(Join({PickledNumber(dim), PickledNumber(1)}));
  const std::string requires_grad = "\x89";
  const std::string tensor =
      Join({"ctorch._utils\n_rebuild_tensor_v2\n",
            PickledTuple(Join({storage, "Q", PickledNumber(0), shape, stride, requires_grad, empty_dict})), "R"});
  return Join({"\x80\x02", empty_dict, PickledText("weight"), tensor, "s."});
}

class TorchEnvelope : public Envelope {
 public:
  explicit TorchEnvelope(const std::string& path) : stem_(std::filesystem::path(path).stem().string()) {}

  absl::Status Begin(int64_t num_classes, int64_t dim, const Sink& sink) override {
    written_ = 0;
    entries_.clear();
    SHARDMAX_RETURN_IF_ERROR(AddSmall("data.pkl", PickledStateDict(num_classes, dim), sink));
    SHARDMAX_RETURN_IF_ERROR(AddSmall("byteorder", "little", sink));
    return Open("data/0", static_cast<uint64_t>(num_classes * dim) * sizeof(float), sink);
  }

  absl::Status Values(std::string_view bytes, const Sink& sink) override {
    entries_.back().crc = Crc32(entries_.back().crc, bytes);
    return Write(bytes, sink);
  }

  absl::Status End(const Sink& sink) override {
    SHARDMAX_RETURN_IF_ERROR(Close(sink));
    SHARDMAX_RETURN_IF_ERROR(AddSmall("version", "3\n", sink));
    return WriteDirectory(sink);
  }

 private:
  struct Entry {
    std::string name;
    uint64_t size = 0;
    uint64_t begin = 0;  // Of its header in the file.
    uint32_t crc = 0;
  };

  absl::Status Write(std::string_view bytes, const Sink& sink) {
    written_ += bytes.size();
    return sink(bytes);
  }

  // What the header of an entry and the directory have in common, up to the length of its name.
  static std::string Common(const Entry& entry, uint32_t crc) {
    const uint16_t stored = 0;
    const uint16_t midnight = 0;
    return Pack(kVersionOfZip64, kChecksumFollows, stored, midnight, kFirstOfJanuary1980, crc, kIn64Bits, kIn64Bits,
                static_cast<uint16_t>(entry.name.size()));
  }

  absl::Status Open(const std::string& name, uint64_t size, const Sink& sink) {
    entries_.push_back({.name = Join({stem_, "/", name}), .size = size, .begin = written_});
    const Entry& entry = entries_.back();
    const std::string sizes = Pack(uint16_t{1}, uint16_t{16}, size, size);
    constexpr uint64_t kFixedBytes = 30;
    constexpr uint64_t kPaddingHeader = 4;
    const uint64_t begin = written_ + kFixedBytes + entry.name.size() + sizes.size() + kPaddingHeader;
    const auto padding = static_cast<uint16_t>((kAlignment - begin % kAlignment) % kAlignment);
    const std::string extra = Join({sizes, "FB", Bytes(padding), std::string(padding, 'Z')});
    const std::string extra_size = Bytes(static_cast<uint16_t>(extra.size()));
    return Write(Join({"PK\3\4", Common(entry, 0), extra_size, entry.name, extra}), sink);
  }

  absl::Status Close(const Sink& sink) {
    const Entry& entry = entries_.back();
    return Write(Join({"PK\7\10", Pack(entry.crc, entry.size, entry.size)}), sink);
  }

  absl::Status AddSmall(const std::string& name, const std::string& content, const Sink& sink) {
    SHARDMAX_RETURN_IF_ERROR(Open(name, content.size(), sink));
    SHARDMAX_RETURN_IF_ERROR(Values(content, sink));
    return Close(sink);
  }

  absl::Status WriteDirectory(const Sink& sink) {
    const uint64_t begin = written_;
    for (const Entry& entry : entries_) {
      const std::string extra = Pack(uint16_t{1}, uint16_t{24}, entry.size, entry.size, entry.begin);
      const std::string rest =
          Pack(static_cast<uint16_t>(extra.size()), uint16_t{0}, uint16_t{0}, uint16_t{0}, uint32_t{0}, kIn64Bits);
      const std::string common = Join({Bytes(kVersionOfZip64), Common(entry, entry.crc)});
      SHARDMAX_RETURN_IF_ERROR(Write(Join({"PK\1\2", common, rest, entry.name, extra}), sink));
    }
    const uint64_t end = written_;
    const uint64_t count = entries_.size();
    const uint64_t bytes_that_follow = 44;
    const std::string in_64_bits = Pack(bytes_that_follow, kVersionOfZip64, kVersionOfZip64, uint32_t{0}, uint32_t{0},
                                        count, count, end - begin, begin);
    const std::string locator = Pack(uint32_t{0}, end, uint32_t{1});
    const auto few = static_cast<uint16_t>(count);
    const std::string in_32_bits = Pack(uint16_t{0}, uint16_t{0}, few, few, kIn64Bits, kIn64Bits, uint16_t{0});
    return Write(Join({"PK\6\6", in_64_bits, "PK\6\7", locator, "PK\5\6", in_32_bits}), sink);
  }

  std::string stem_;
  uint64_t written_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace

std::unique_ptr<Envelope> MakeTorchEnvelope(const std::string& path) {
  return std::make_unique<TorchEnvelope>(path);
}

}  // namespace shardmax
