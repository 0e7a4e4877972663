// Messages for programs.
#pragma once

#include <google/protobuf/message.h>

#include <string>

namespace shardmax {

// One line of JSON with a newline: proto field names, enums by name, 64-bit integers as strings, fields at their
// default included.
std::string JsonLine(const google::protobuf::Message& message);

}  // namespace shardmax
