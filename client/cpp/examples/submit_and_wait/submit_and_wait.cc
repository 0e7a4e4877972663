// Submits a job, prints its progress, and saves the class weights when it has succeeded.
//
//   submit_and_wait HOST:PORT job.textproto weights.safetensors
//
// The token, where the server asks for one, is in the environment variable SHARDMAX_TOKEN.
#include <shardmax/client.h>

#include <cstdlib>
#include <iostream>

namespace {

int Fail(const absl::Status& status) {
  std::cerr << "submit_and_wait: " << status << "\n";
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: submit_and_wait HOST:PORT JOB_FILE WEIGHTS_FILE\n";
    return 2;
  }
  shardmax::ClientOptions options;
  options.server = argv[1];
  if (const char* token = std::getenv("SHARDMAX_TOKEN")) options.token = token;
  auto client = shardmax::Client::Create(options);
  if (!client.ok()) return Fail(client.status());

  auto spec = shardmax::LoadJobSpec(argv[2]);
  if (!spec.ok()) return Fail(spec.status());
  auto job = (*client)->Submit(*spec);
  if (!job.ok()) return Fail(job.status());
  std::cout << "submitted " << job->id() << std::endl;

  // The stream connects again by itself when the server is restarted.
  shardmax::v1::Job last;
  const absl::Status watched = (*client)->Watch(job->id(), [&](const shardmax::v1::Job& now) {
    std::cout << shardmax::v1::JobState_Name(now.state()) << " step " << now.progress().step() << "/"
              << now.total_steps() << " loss " << now.progress().loss() << std::endl;
    last = now;
    return true;
  });
  if (!watched.ok()) return Fail(watched);
  if (last.state() != shardmax::v1::SUCCEEDED) {
    std::cerr << "the job did not succeed: " << last.reason() << "\n";
    return 1;
  }
  auto exported = (*client)->ExportCheckpoint(last.id(), 0, argv[3]);
  if (!exported.ok()) return Fail(exported.status());
  std::cout << "weights of step " << exported->step << " in " << argv[3] << "\n";
  return 0;
}
