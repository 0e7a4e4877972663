#include "rpc/listen_address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>

#include <charconv>
#include <memory>

#include "worker/base/status.h"
#include "worker/data/quote.h"

namespace shardmax {
namespace {

bool IsLoopbackAddress(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
  }
  if (address->sa_family == AF_INET6) {
    const auto* v6 = reinterpret_cast<const sockaddr_in6*>(address);
    return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
  }
  return false;
}

}  // namespace

std::string ListenAddress::Text() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

absl::StatusOr<ListenAddress> ParseListenAddress(const std::string& option, const std::string& text) {
  const size_t colon = text.rfind(':');
  ListenAddress address;
  bool sound = colon != std::string::npos && colon > 0;
  if (sound) {
    address.host = text.substr(0, colon);
    const bool brackets = address.host.front() == '[' && address.host.back() == ']';
    if (brackets) address.host = address.host.substr(1, address.host.size() - 2);
    sound = !address.host.empty() && (brackets || address.host.find(':') == std::string::npos);
    const char* end = text.data() + text.size();
    const auto [parsed, error] = std::from_chars(text.data() + colon + 1, end, address.port);
    sound = sound && error == std::errc() && parsed == end && address.port >= 0 && address.port <= 65535;
  }
  if (sound) return address;
  return InvalidArgument("{} is {}: give HOST:PORT, or [IPV6]:PORT; port 0 is any", option, Quoted(text));
}

absl::StatusOr<bool> IsLoopback(const std::string& option, const ListenAddress& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int code = getaddrinfo(address.host.c_str(), nullptr, &hints, &list); code != 0) {
    return Error(absl::StatusCode::kNotFound, "{}: {}: {}", option, Quoted(address.host), gai_strerror(code));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> guard(list, freeaddrinfo);
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (!IsLoopbackAddress(entry->ai_addr)) return false;
  }
  return true;
}

absl::Status RequireLoopback(const std::string& option, const ListenAddress& address, const std::string& what_to_do) {
  SHARDMAX_ASSIGN_OR_RETURN(const bool loopback, IsLoopback(option, address));
  if (loopback) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, "{} is {}, which other machines can reach: {}", option,
               address.Text(), what_to_do);
}

}  // namespace shardmax
