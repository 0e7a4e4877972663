// Certificates for tests of TLS, made by the openssl command.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/data/temp_folder.h"

namespace shardmax {

// An authority, and certificates that it signs, as PEM files in a folder that is removed at the end.
class TestAuthority {
 public:
  TestAuthority() {
    Run("req -x509 -newkey ec " + kCurve + " -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
  }

  std::string ca() const { return folder_.path("ca.pem"); }
  std::string cert(const std::string& name) const { return folder_.path(name + ".pem"); }
  std::string key(const std::string& name) const { return folder_.path(name + ".key"); }

  // NAME.pem and NAME.key, for localhost and 127.0.0.1.
  void Sign(const std::string& name) const {
    folder_.Write(name + ".ext", "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
    Run("req -newkey ec " + kCurve + " -nodes -subj /CN=" + name + " -keyout " + name + ".key -out " + name + ".csr");
    Run("x509 -req -days 2 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile " + name + ".ext -in " + name +
        ".csr -out " + name + ".pem");
  }

 private:
  void Run(const std::string& arguments) const {
    const std::string log = folder_.path("openssl.log");
    const std::string command = "cd '" + folder_.path() + "' && openssl " + arguments + " > openssl.log 2>&1";
    if (std::system(command.c_str()) != 0) ADD_FAILURE() << command << "\n" << TempFolder::ReadAll(log);
  }

  const std::string kCurve = "-pkeyopt ec_paramgen_curve:prime256v1";
  TempFolder folder_;
};

}  // namespace shardmax
